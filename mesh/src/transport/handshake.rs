//! What every connection has to do before anything above sees it, whatever it travels on.

use std::time::Duration;

/// How long a connection may take from the first packet to the proof of who is there.
pub(super) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
