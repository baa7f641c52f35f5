//! Finds the mesh that a person named: by its whole name, or by the beginning of its id.

use std::sync::Arc;

use wormhole_crdt::{DeviceId, MeshId};
use wormhole_mesh::words;

use super::LocalMesh;
use crate::error::LookupError;

/// The mesh that a person named.
pub(super) fn find_mesh(
    meshes: Vec<Arc<LocalMesh>>,
    wanted: &str,
) -> Result<Arc<LocalMesh>, LookupError> {
    let names: Vec<(MeshId, String)> = meshes
        .iter()
        .map(|mesh| (mesh.id(), mesh.name().to_owned()))
        .collect();
    let id = find(&names, wanted)?;
    let found = meshes.into_iter().find(|mesh| mesh.id() == id);
    Ok(found.expect("the id was found among these meshes"))
}

/// The shortest beginning of an id that names a mesh: shorter ones are more likely mistakes.
pub(super) const SHORTEST_PREFIX: usize = 4;

/// A whole name wins over the beginning of an id.
fn find(meshes: &[(MeshId, String)], wanted: &str) -> Result<MeshId, LookupError> {
    let mut candidates: Vec<MeshId> = meshes
        .iter()
        .filter(|(_, name)| name == wanted)
        .map(|(id, _)| *id)
        .collect();
    if candidates.is_empty() && wanted.len() >= SHORTEST_PREFIX {
        let wanted = wanted.to_ascii_lowercase();
        let begins = |id: &MeshId| id.to_string().starts_with(&wanted);
        candidates = meshes.iter().map(|(id, _)| *id).filter(begins).collect();
    }
    match candidates.as_slice() {
        [id] => Ok(*id),
        [] => Err(LookupError::Unknown {
            wanted: wanted.to_owned(),
            known: meshes.iter().map(|(_, name)| name.clone()).collect(),
        }),
        [..] => Err(LookupError::Ambiguous {
            wanted: wanted.to_owned(),
            candidates,
        }),
    }
}

/// The devices that a person may mean: those of that whole name, or else those whose id begins so, or whose id's words
/// these are.
pub(super) fn find_device(devices: &[(DeviceId, String)], wanted: &str) -> Vec<DeviceId> {
    let named = |is: &dyn Fn(&DeviceId, &str) -> bool| -> Vec<DeviceId> {
        let found = devices.iter().filter(|(id, name)| is(id, name));
        found.map(|(id, _)| *id).collect()
    };
    let found = named(&|_, name| name == wanted);
    if !found.is_empty() || wanted.len() < SHORTEST_PREFIX {
        return found;
    }
    let wanted = wanted.to_ascii_lowercase().replace('-', " ");
    named(&|id, _| id.to_string().starts_with(&wanted) || words(id) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_name_by_the_beginning_of_its_id_or_by_its_words() {
        let (one, two) = (
            DeviceId::from_bytes([0xab; 32]),
            DeviceId::from_bytes([1; 32]),
        );
        let devices = [(one, "laptop".to_owned()), (two, "0101".to_owned())];
        assert_eq!(find_device(&devices, "laptop"), [one]);
        assert_eq!(find_device(&devices, "ABAB"), [one]);
        assert_eq!(find_device(&devices, "0101"), [two], "a name goes first");
        assert_eq!(find_device(&devices, &words(&one)), [one]);
        assert_eq!(find_device(&devices, &words(&one).replace(' ', "-")), [one]);
        for unclear in ["ab", "lap", "0101ab"] {
            assert_eq!(find_device(&devices, unclear), []);
        }
    }

    fn meshes() -> Vec<(MeshId, String)> {
        let mut near = [0xab; 32];
        near[31] = 1;
        vec![
            (MeshId::from_bytes([0xab; 32]), "Designs".to_owned()),
            (MeshId::from_bytes(near), "Music".to_owned()),
            (MeshId::from_bytes([1; 32]), "Music".to_owned()),
        ]
    }

    #[test]
    fn a_mesh_is_found_by_name_or_by_the_beginning_of_its_id() {
        assert_eq!(
            find(&meshes(), "Designs"),
            Ok(MeshId::from_bytes([0xab; 32]))
        );
        assert_eq!(find(&meshes(), "0101"), Ok(MeshId::from_bytes([1; 32])));
    }

    #[test]
    fn a_name_that_is_not_clear_is_refused_with_the_candidates() {
        let error = find(&meshes(), "Music").unwrap_err();
        assert!(
            matches!(error, LookupError::Ambiguous { candidates, .. } if candidates.len() == 2)
        );
        assert!(matches!(
            find(&meshes(), "ABab"),
            Err(LookupError::Ambiguous { .. })
        ));
        assert!(matches!(
            find(&meshes(), "ab"),
            Err(LookupError::Unknown { .. })
        ));
        assert!(matches!(find(&[], "x"), Err(LookupError::Unknown { .. })));
    }
}
