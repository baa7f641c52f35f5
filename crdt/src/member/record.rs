//! One signed record of the membership log, and its bytes.
//!
//! Layout: 64 bytes Ed25519 signature; a *frame* that no version changes (format, mesh, author, parents); then
//! the content in the form that the format says. The signature covers a domain prefix and all that follows it; the
//! record's name is the BLAKE3 hash of all its bytes. So any program can say who signed a record and what it builds
//! on, keep it and pass it on, even when only a later version understands what it does. Whether the author
//! was allowed to write it is for `log` to say.

use serde::{Deserialize, Serialize};

use super::{MemberFault, Role};
use crate::id::{DeviceId, DeviceKey, EpochId, Hash, Incarnation, MeshId, Timestamp};
use crate::limit::{MAX_LABEL_BYTES, MAX_MEMBER_HEADS, MAX_MEMBER_RECORD_BYTES};

const DOMAIN: &[u8] = b"wormhole membership record\0";

/// The format of the content that this program writes.
const FORMAT: u8 = 2;

/// What the frame of a founding record has in place of the mesh, whose id is that record's hash.
const NO_MESH: [u8; 32] = [0; 32];

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    Revoke { device: DeviceId, cut: Cut },
    /// A member gets another role. When that does not write, what it wrote up to `cut` stays.
    SetRole {
        device: DeviceId,
        role: Role,
        cut: Cut,
    },
    /// Names the key that outranks all admins. Once there is one, only it names another.
    Recovery { key: DeviceId },
    /// From now on only programs that know this format write.
    Format { minimum: u16 },
    /// From now on envelopes are sealed with the secret of this epoch. It travels beside the record, sealed for each
    /// member, in the list with this hash. `left` are admissions that their devices ended themselves, and that no
    /// rotation before names: those devices are not in the list.
    Rotate {
        epoch: EpochId,
        keys: Hash,
        left: Vec<Hash>,
    },
    /// What of the mesh's history is younger than this is not given up by anybody.
    Retention { days: u32 },
    /// A member says that it goes. Its only parent is its admission; it is no part of the graph.
    Leave,
    /// Something that only a later version understands.
    Unknown,
}

/// The last number that counts of each life of a device; of other lives none does.
pub(crate) type Cut = Vec<(Incarnation, u64)>;

/// What every version of a content begins with. Tagged extensions are kept, and ignored when unknown.
#[derive(Serialize, Deserialize)]
struct Content<'a> {
    at: Timestamp,
    kind: u16,
    #[serde(borrow)]
    body: &'a [u8],
    #[serde(borrow)]
    extensions: Vec<(u16, &'a [u8])>,
}

mod kind {
    pub(super) const FOUND: u16 = 0;
    pub(super) const ADMIT: u16 = 1;
    pub(super) const REVOKE: u16 = 2;
    pub(super) const SET_ROLE: u16 = 3;
    pub(super) const RECOVERY: u16 = 4;
    pub(super) const FORMAT: u16 = 5;
    pub(super) const LEAVE: u16 = 6;
    pub(super) const ROTATE: u16 = 7;
    pub(super) const RETENTION: u16 = 8;
}

/// A record whose signature, size and names have been checked.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) hash: Hash,
    /// `None` in the founding record only, whose hash it is.
    pub(crate) mesh: Option<MeshId>,
    pub(crate) parents: Vec<Hash>,
    pub(crate) author: DeviceId,
    /// When, by the author's clock.
    pub(crate) at: Timestamp,
    pub(crate) action: Action,
    pub(crate) bytes: Vec<u8>,
}

/// The part that no version changes.
struct Frame {
    format: u8,
    mesh: Option<MeshId>,
    author: DeviceId,
    parents: Vec<Hash>,
}

impl Record {
    pub(crate) fn sign(
        key: &DeviceKey,
        mesh: Option<MeshId>,
        parents: Vec<Hash>,
        at: Timestamp,
        action: Action,
    ) -> Self {
        let content = encode(at, &action);
        let frame = Frame {
            format: FORMAT,
            mesh,
            author: key.device_id(),
            parents,
        };
        let bytes = seal(key, &frame, &content);
        Self::from_parts(frame, at, action, bytes)
    }

    /// Decodes and checks everything that can be checked without the rest of the log.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MemberFault> {
        if bytes.len() > MAX_MEMBER_RECORD_BYTES {
            return Err(MemberFault::TooLarge);
        }
        let (signature, signed) = bytes
            .split_first_chunk::<64>()
            .ok_or(MemberFault::Malformed)?;
        let (frame, content) = Frame::read(signed).ok_or(MemberFault::Malformed)?;
        if !frame.author.verify(&[DOMAIN, signed].concat(), signature) {
            return Err(MemberFault::BadSignature {
                author: frame.author,
            });
        }
        let (at, action) = match frame.format {
            FORMAT => decode(content)?,
            _ => (Timestamp::default(), Action::Unknown),
        };
        Ok(Self::from_parts(frame, at, action, bytes.to_vec()))
    }

    fn from_parts(frame: Frame, at: Timestamp, action: Action, bytes: Vec<u8>) -> Self {
        Self {
            hash: Hash::from_bytes(*blake3::hash(&bytes).as_bytes()),
            mesh: frame.mesh,
            parents: frame.parents,
            author: frame.author,
            at,
            action,
            bytes,
        }
    }

    /// The device whose membership the record is about.
    pub(super) fn about(&self) -> Option<DeviceId> {
        match &self.action {
            Action::Found { .. } => Some(self.author),
            Action::Admit { device, .. }
            | Action::Revoke { device, .. }
            | Action::SetRole { device, .. } => Some(*device),
            Action::Recovery { .. }
            | Action::Format { .. }
            | Action::Rotate { .. }
            | Action::Retention { .. }
            | Action::Leave
            | Action::Unknown => None,
        }
    }

    /// The device that loses its right to write membership records by this one, by the hand of another.
    pub(super) fn unseats(&self) -> Option<DeviceId> {
        let device = match &self.action {
            Action::Revoke { device, .. } => *device,
            Action::SetRole { device, role, .. } if *role != Role::Admin => *device,
            Action::Found { .. }
            | Action::Admit { .. }
            | Action::SetRole { .. }
            | Action::Recovery { .. }
            | Action::Format { .. }
            | Action::Rotate { .. }
            | Action::Retention { .. }
            | Action::Leave
            | Action::Unknown => return None,
        };
        (device != self.author).then_some(device)
    }
}

impl Frame {
    fn write(&self) -> Vec<u8> {
        let mut bytes = vec![self.format];
        let mesh = self.mesh.as_ref().map_or(&NO_MESH, MeshId::as_bytes);
        bytes.extend_from_slice(mesh);
        bytes.extend_from_slice(self.author.as_bytes());
        let count = u8::try_from(self.parents.len()).expect("no record has more than 64 parents");
        bytes.push(count);
        for parent in &self.parents {
            bytes.extend_from_slice(parent.as_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&format, rest) = bytes.split_first()?;
        let (mesh, rest) = rest.split_first_chunk::<32>()?;
        let (author, rest) = rest.split_first_chunk::<32>()?;
        let (&count, rest) = rest.split_first()?;
        let (parents, content) = rest.split_at_checked(32 * usize::from(count))?;
        let (parents, _) = parents.as_chunks::<32>();
        let parents: Vec<Hash> = parents.iter().map(|hash| Hash::from_bytes(*hash)).collect();
        if parents.len() > MAX_MEMBER_HEADS || !parents.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let frame = Self {
            format,
            mesh: (*mesh != NO_MESH).then(|| MeshId::from_bytes(*mesh)),
            author: DeviceId::from_bytes(*author),
            parents,
        };
        Some((frame, content))
    }
}

fn seal(key: &DeviceKey, frame: &Frame, content: &[u8]) -> Vec<u8> {
    let signed = [&frame.write(), content].concat();
    let mut bytes = key.sign(&[DOMAIN, &signed].concat()).to_vec();
    bytes.extend_from_slice(&signed);
    bytes
}

fn encode(at: Timestamp, action: &Action) -> Vec<u8> {
    let plain =
        |body: Result<Vec<u8>, postcard::Error>| body.expect("an action holds only plain data");
    let (kind, body) = match action {
        Action::Found {
            mesh_name,
            device_name,
            nonce,
        } => (
            kind::FOUND,
            plain(postcard::to_stdvec(&(mesh_name, device_name, nonce))),
        ),
        Action::Admit { device, name, role } => (
            kind::ADMIT,
            plain(postcard::to_stdvec(&(device, role.number(), name))),
        ),
        Action::Revoke { device, cut } => {
            (kind::REVOKE, plain(postcard::to_stdvec(&(device, cut))))
        }
        Action::SetRole { device, role, cut } => (
            kind::SET_ROLE,
            plain(postcard::to_stdvec(&(device, role.number(), cut))),
        ),
        Action::Recovery { key } => (kind::RECOVERY, plain(postcard::to_stdvec(key))),
        Action::Format { minimum } => (kind::FORMAT, plain(postcard::to_stdvec(minimum))),
        Action::Rotate { epoch, keys, left } => (
            kind::ROTATE,
            plain(postcard::to_stdvec(&(epoch, keys, left))),
        ),
        Action::Retention { days } => (kind::RETENTION, plain(postcard::to_stdvec(days))),
        Action::Leave => (kind::LEAVE, Vec::new()),
        // Only ever read.
        Action::Unknown => (u16::MAX, Vec::new()),
    };
    plain(postcard::to_stdvec(&Content {
        at,
        kind,
        body: &body,
        extensions: Vec::new(),
    }))
}

fn decode(bytes: &[u8]) -> Result<(Timestamp, Action), MemberFault> {
    let content: Content<'_> = whole(bytes)?;
    let body = content.body;
    let action = match content.kind {
        kind::FOUND => {
            let (mesh_name, device_name, nonce) = whole::<(String, String, [u8; 16])>(body)?;
            fits(&mesh_name)?;
            fits(&device_name)?;
            Action::Found {
                mesh_name,
                device_name,
                nonce,
            }
        }
        kind::ADMIT => {
            let (device, role, name) = whole::<(DeviceId, u8, String)>(body)?;
            fits(&name)?;
            match Role::from_number(role) {
                Some(role) => Action::Admit { device, name, role },
                None => Action::Unknown,
            }
        }
        kind::REVOKE => {
            let (device, cut) = whole(body)?;
            Action::Revoke { device, cut }
        }
        kind::SET_ROLE => {
            let (device, role, cut) = whole::<(DeviceId, u8, Cut)>(body)?;
            match Role::from_number(role) {
                Some(role) => Action::SetRole { device, role, cut },
                None => Action::Unknown,
            }
        }
        kind::RECOVERY => Action::Recovery { key: whole(body)? },
        kind::FORMAT => Action::Format {
            minimum: whole(body)?,
        },
        kind::ROTATE => {
            let (epoch, keys, left) = whole(body)?;
            Action::Rotate { epoch, keys, left }
        }
        kind::RETENTION => Action::Retention { days: whole(body)? },
        kind::LEAVE if body.is_empty() => Action::Leave,
        kind::LEAVE => return Err(MemberFault::Malformed),
        _ => Action::Unknown,
    };
    Ok((content.at, action))
}

/// Decodes bytes of which none may be left over.
fn whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, MemberFault> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(MemberFault::Malformed),
    }
}

fn fits(label: &str) -> Result<(), MemberFault> {
    match label_fits(label) {
        true => Ok(()),
        false => Err(MemberFault::BadLabel),
    }
}

/// Whether a mesh's or device's name may be recorded. Escaping for display is the reader's duty.
pub(crate) fn label_fits(label: &str) -> bool {
    !label.is_empty() && label.len() <= MAX_LABEL_BYTES && !label.chars().any(char::is_control)
}

/// Records of a version to come, for tests: another format, another action, another role, an extension.
#[cfg(test)]
pub(super) mod later {
    use super::*;

    /// What is new in it.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::member) enum News {
        Format,
        Action,
        Role,
        Extension,
    }

    pub(in crate::member) fn sign(
        key: &DeviceKey,
        mesh: MeshId,
        parents: Vec<Hash>,
        device: DeviceId,
        news: News,
    ) -> Vec<u8> {
        let role: u8 = if matches!(news, News::Role) { 200 } else { 1 };
        let body = postcard::to_stdvec(&(device, role, "later")).unwrap();
        let content = postcard::to_stdvec(&Content {
            at: Timestamp(0),
            kind: if matches!(news, News::Action) {
                77
            } else {
                kind::ADMIT
            },
            body: &body,
            extensions: match news {
                News::Extension => vec![(9, b"something")],
                News::Format | News::Action | News::Role => Vec::new(),
            },
        })
        .unwrap();
        let format = if matches!(news, News::Format) {
            FORMAT + 1
        } else {
            FORMAT
        };
        let frame = Frame {
            format,
            mesh: Some(mesh),
            author: key.device_id(),
            parents,
        };
        seal(key, &frame, &content)
    }
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
        let rotate = Action::Rotate {
            epoch: EpochId::from_bytes([3; 16]),
            keys: admit.hash,
            left: vec![admit.hash],
        };
        let rotate = Record::sign(&founder, mesh, vec![revoke.hash], NOW, rotate);
        let right = [found.bytes, admit.bytes, revoke.bytes, rotate.bytes];
        bend("records", &right, "", budget, |bytes| {
            let _as_it_is = Record::decode(bytes);
            if let Some((_, encoded)) = bytes.split_first_chunk::<64>() {
                let signature = founder.sign(&[DOMAIN, encoded].concat());
                let _signed = Record::decode(&[&signature[..], encoded].concat());
            }
        });
    }
}
