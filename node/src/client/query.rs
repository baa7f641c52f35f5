//! Writes a query struct behind a route, percent-encoded.
//!
//! Only what the API's own queries need: flat structs of strings and numbers, absent when `None`.

use serde::Serialize;
use serde_json::Value;

use super::ClientError;

/// `route?name=value&…`; the bare route when `query` has no fields or is `()`.
pub(super) fn address<Q: Serialize>(route: &str, query: &Q) -> Result<String, ClientError> {
    let mut address = route.to_owned();
    let Value::Object(fields) = serde_json::to_value(query).map_err(ClientError::Encode)? else {
        return Ok(address);
    };
    let mut separator = '?';
    for (name, value) in fields {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                value.to_string()
            }
        };
        address.push(separator);
        address.push_str(&name);
        address.push('=');
        escape(&text, &mut address);
        separator = '&';
    }
    Ok(address)
}

/// `text` as one component of a route (a mesh's name may hold anything, a `/` too).
#[must_use]
pub fn segment(text: &str) -> String {
    let mut out = String::new();
    escape(text, &mut out);
    out
}

/// Escapes all but the unreserved characters of RFC 3986.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{MeshQuery, TreeQuery};

    #[test]
    fn any_path_fits_into_an_address() {
        let query = TreeQuery {
            mesh: "Fotos & so".to_owned(),
            path: "a/ü?.txt".to_owned(),
        };
        let address = address("/v1/ls", &query).unwrap();
        assert_eq!(
            address,
            "/v1/ls?mesh=Fotos%20%26%20so&path=a%2F%C3%BC%3F.txt"
        );
    }

    #[test]
    fn what_is_absent_is_not_written() {
        assert_eq!(
            address("/v1/status", &MeshQuery::default()).unwrap(),
            "/v1/status"
        );
        assert_eq!(address("/v1/meshes", &()).unwrap(), "/v1/meshes");
    }
}
