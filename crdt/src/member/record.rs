//! One signed record of the membership log, and its bytes.
//!
//! Layout: 64 bytes Ed25519 signature, then the postcard form of [`Body`]. The signature covers a
//! domain prefix and the body; the record's name is the BLAKE3 hash of all its bytes. Whether the
//! author was allowed to write it is decided in `state`.

use serde::{Deserialize, Serialize};

use super::{MemberFault, Role};
use crate::id::{DeviceId, DeviceKey, Hash, Incarnation, MeshId, Timestamp};
use crate::limit::{MAX_LABEL_BYTES, MAX_MEMBER_HEADS, MAX_MEMBER_RECORD_BYTES};

const DOMAIN: &[u8] = b"wormhole membership record\0";
const FORMAT: u8 = 1;

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    /// The first record: its author becomes the first admin. Its hash is the mesh's id.
    Found {
        mesh_name: String,
        device_name: String,
        /// Makes two meshes of one device and name different.
        nonce: [u8; 16],
    },
    /// A device becomes a member.
    Admit {
        device: DeviceId,
        name: String,
        role: Role,
    },
    /// A device stops being a member. What it wrote up to `cut` stays.
    Revoke {
        device: DeviceId,
        cut: Vec<(Incarnation, u64)>,
    },
}

/// The signed part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    format: u8,
    /// `None` in the founding record only, whose hash it is.
    mesh: Option<MeshId>,
    parents: Vec<Hash>,
    author: DeviceId,
    at: Timestamp,
    action: Action,
}

/// A record whose signature, size and names have been checked.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) hash: Hash,
    pub(crate) mesh: Option<MeshId>,
    pub(crate) parents: Vec<Hash>,
    pub(crate) author: DeviceId,
    pub(crate) at: Timestamp,
    pub(crate) action: Action,
    pub(crate) bytes: Vec<u8>,
}

impl Record {
    pub(crate) fn sign(
        key: &DeviceKey,
        mesh: Option<MeshId>,
        parents: Vec<Hash>,
        at: Timestamp,
        action: Action,
    ) -> Self {
        let author = key.device_id();
        let body = Body {
            format: FORMAT,
            mesh,
            parents,
            author,
            at,
            action,
        };
        let encoded = postcard::to_stdvec(&body).expect("a record holds only plain data");
        let mut bytes = key.sign(&signed_bytes(&encoded)).to_vec();
        bytes.extend_from_slice(&encoded);
        Self::from_body(body, bytes)
    }

    /// Decodes and checks everything that can be checked without the rest of the log.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MemberFault> {
        if bytes.len() > MAX_MEMBER_RECORD_BYTES {
            return Err(MemberFault::TooLarge);
        }
        let (signature, encoded) = bytes
            .split_first_chunk::<64>()
            .ok_or(MemberFault::Malformed)?;
        let body: Body = postcard::from_bytes(encoded).map_err(|_| MemberFault::Malformed)?;
        if body.format != FORMAT {
            return Err(MemberFault::UnknownFormat {
                format: body.format,
            });
        }
        if body.parents.len() > MAX_MEMBER_HEADS || !body.parents.is_sorted_by(|a, b| a < b) {
            return Err(MemberFault::Malformed);
        }
        let labels_fit = match &body.action {
            Action::Found {
                mesh_name,
                device_name,
                ..
            } => label_fits(mesh_name) && label_fits(device_name),
            Action::Admit { name, .. } => label_fits(name),
            Action::Revoke { .. } => true,
        };
        if !labels_fit {
            return Err(MemberFault::BadLabel);
        }
        if !body.author.verify(&signed_bytes(encoded), signature) {
            return Err(MemberFault::BadSignature {
                author: body.author,
            });
        }
        Ok(Self::from_body(body, bytes.to_vec()))
    }

    fn from_body(body: Body, bytes: Vec<u8>) -> Self {
        Self {
            hash: Hash::from_bytes(*blake3::hash(&bytes).as_bytes()),
            mesh: body.mesh,
            parents: body.parents,
            author: body.author,
            at: body.at,
            action: body.action,
            bytes,
        }
    }
}

/// Whether a mesh's or device's name may be recorded. Escaping for display is the reader's duty.
pub(crate) fn label_fits(label: &str) -> bool {
    !label.is_empty() && label.len() <= MAX_LABEL_BYTES && !label.chars().any(char::is_control)
}

fn signed_bytes(encoded: &[u8]) -> Vec<u8> {
    [DOMAIN, encoded].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bend::{Budget, bend};
    use crate::lab::{NOW, key};

    #[test]
    fn bent_records_do_no_harm_whoever_signs_them() {
        let (founder, other) = (key(1), key(2));
        let found = Action::Found {
            mesh_name: "designs".into(),
            device_name: "founder".into(),
            nonce: [7; 16],
        };
        let found = Record::sign(&founder, None, Vec::new(), NOW, found);
        let mesh = Some(MeshId::from_bytes(*found.hash.as_bytes()));
        let admit = Action::Admit {
            device: other.device_id(),
            name: "other".into(),
            role: Role::Writer,
        };
        let admit = Record::sign(&founder, mesh, vec![found.hash], NOW, admit);
        let revoke = Action::Revoke {
            device: other.device_id(),
            cut: Vec::new(),
        };
        let revoke = Record::sign(&founder, mesh, vec![admit.hash], NOW, revoke);
        // A list reserves up to a megabyte for what it claims.
        let budget = Budget {
            fixed: 2 << 20,
            per_byte: 16,
        };
        let right = [found.bytes, admit.bytes, revoke.bytes];
        bend("records", &right, "", budget, |bytes| {
            let _as_it_is = Record::decode(bytes);
            if let Some((_, encoded)) = bytes.split_first_chunk::<64>() {
                let signature = founder.sign(&signed_bytes(encoded));
                let _signed = Record::decode(&[&signature[..], encoded].concat());
            }
        });
    }
}
