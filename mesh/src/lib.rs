//! Peers: identity, transports, discovery, metadata sync, chunk exchange, invites.
