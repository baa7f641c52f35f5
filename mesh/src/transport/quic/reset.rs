//! How a device that was restarted tells its peers that their connections are dead.
//!
//! A packet for a connection that nobody knows is answered with a *stateless reset* (RFC 9000, 10.3): a
//! token that the peer was given for that connection, computed from its id and a key. The key comes from
//! the device's key, so that it is the same after a restart, and a peer notices within seconds instead of
//! after the idle timeout. quinn's own connection ids would not be recognised after a restart.

use std::{sync::Arc, time::Duration};

use libp2p::identity::Keypair;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};
use rand::RngExt;

/// Domain of the derived secret; it must never change, but no harm is done if it does.
const DOMAIN: &[u8] = b"wormhole quic stateless reset 1";

/// An endpoint configuration whose reset tokens survive a restart.
pub(super) fn endpoint_config(keypair: &Keypair) -> EndpointConfig {
    let Some(secret) = keypair.derive_secret(DOMAIN) else {
        return EndpointConfig::default(); // only for keys that no device has
    };
    let mut config = EndpointConfig::new(Arc::new(ResetKey(secret)));
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// Connection ids without a structure: any of them may have been ours before a restart.
#[derive(Debug)]
struct RandomIds;

/// Bytes of a connection id; enough that nobody guesses one.
const ID_LEN: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::rng().random::<[u8; ID_LEN]>())
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Keyed BLAKE3 where quinn asks for an HMAC.
struct ResetKey([u8; blake3::KEY_LEN]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature = <[u8; blake3::OUT_LEN]>::try_from(signature).map_err(|_| CryptoError)?;
        let expected = blake3::keyed_hash(&self.0, data);
        // Hashes compare in constant time.
        if expected == blake3::Hash::from_bytes(signature) {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}
