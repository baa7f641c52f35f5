//! What a session must stand: messages and envelopes that are almost right.

use std::sync::Arc;

use super::*;
use crate::bend::{Budget, bend};
use crate::bucket::change::Incoming as Change;
use crate::envelope::{Envelope, Frame, sign_again};
use crate::lab::{conversation, create, key, mesh, rng, sync, write};
use crate::member::Role;

/// Three replicas of which the third has nothing yet, and all that is said until it has.
fn heard() -> (Vec<Replica>, Vec<Vec<u8>>) {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let id = create(&replicas[0], "plan.txt", 1, 1);
    sync(&replicas[0], &replicas[1]);
    write(&replicas[1], id, 2);
    create(&replicas[1], "other.txt", 3, 2);
    let mut heard = conversation(&replicas[0], &replicas[1]);
    heard.extend(conversation(&replicas[0], &replicas[2]));
    (replicas, heard)
}

fn envelopes(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let of = |message: &Vec<u8>| -> Vec<Vec<u8>> {
        match Wire::decode(message) {
            Ok(Wire::Envelopes(all) | Wire::Below(all)) => {
                all.iter().map(|one| one.to_vec()).collect()
            }
            Ok(Wire::Pieces(all)) => all.iter().map(|(one, _)| one.to_vec()).collect(),
            _ => Vec::new(),
        }
    };
    messages.iter().flat_map(of).collect()
}

#[test]
fn bent_envelopes_do_no_harm_whoever_signs_them() {
    let (replicas, messages) = heard();
    let right = envelopes(&messages);
    let epochs = Arc::clone(&replicas[0].shared().epochs);
    let secret = epochs.current().expect("a mesh has an epoch");
    assert!(right.len() >= 3, "there are envelopes to bend");
    // A list reserves up to a megabyte for what it claims; a change is unfolded.
    let budget = Budget {
        fixed: 8 << 20,
        per_byte: 512,
    };
    let decode = |bytes: &[u8]| {
        let _frame = Frame::verify(bytes);
        let _trusted = Envelope::decode_trusted(bytes);
        let Ok(envelope) = Envelope::decode(bytes, &epochs) else {
            return;
        };
        for (bucket, change) in &envelope.changes {
            let _change =
                Change::parse(*bucket, change, &envelope.frame.author, envelope.frame.seq);
        }
    };
    bend("envelopes", &right, "", budget, |bytes| {
        decode(bytes);
        for author in 1..=2 {
            if let Some(signed) = sign_again(bytes, &key(author), secret) {
                decode(&signed);
            }
        }
    });
}

#[test]
fn bent_messages_do_no_harm_to_a_session() {
    let (replicas, messages) = heard();
    let is_hello = |message: &&Vec<u8>| matches!(Wire::decode(message), Ok(Wire::Hello(_)));
    let hello = messages
        .iter()
        .find(is_hello)
        .expect("a conversation has a hello");
    // What is taken goes into a database in memory, with its cache.
    let budget = Budget {
        fixed: 64 << 20,
        per_byte: 1_024,
    };
    bend("messages of a session", &messages, "", budget, |bytes| {
        for replica in &replicas {
            let mut session = Session::new(replica, replicas[0].device());
            let mut rng = rng(1);
            for message in [hello.as_slice(), bytes] {
                // Refused or taken: the session answers.
                if session.receive(message, &mut rng).is_err() {
                    break;
                }
                let _more = session.poll(1 << 16);
            }
        }
    });
    for replica in &replicas {
        assert!(
            crate::lab::listing(replica).len() >= 2,
            "nothing was lost by it"
        );
    }
}
