//! Where answers go: lines for people, JSON for programs, and never a control character from a
//! name that somebody else chose.
//!
//! Writes to the standard output fail like any other write, so that a closed pipe ends a command
//! quietly instead of killing it.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::CliError;

/// How a command answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    People,
    Json,
}

impl Output {
    /// With `--json` or without.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            form: if json { Form::Json } else { Form::People },
        }
    }

    /// Writes `reply` as one line of JSON, or what `say` makes of it.
    ///
    /// # Errors
    ///
    /// When the standard output cannot be written.
    pub(crate) fn answer<R: Serialize>(
        self,
        reply: &R,
        say: impl FnOnce(&R) -> String,
    ) -> Result<(), CliError> {
        match self.form {
            Form::People => self.say(&say(reply)),
            Form::Json => {
                let mut text = json(reply)?;
                text.push('\n');
                write(&text)
            }
        }
    }

    /// Writes lines for people; nothing with `--json`.
    ///
    /// # Errors
    ///
    /// When the standard output cannot be written.
    pub(crate) fn say(self, text: &str) -> Result<(), CliError> {
        if self.form == Form::Json || text.is_empty() {
            return Ok(());
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write(&format!("{text}{end}"))
    }

    /// Whether somebody looks at a terminal and wants to see things move.
    pub(crate) fn is_lively(self) -> bool {
        self.form == Form::People && io::stdout().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether the answer is for people.
    pub(crate) fn is_for_people(self) -> bool {
        self.form == Form::People
    }
}

/// One line of JSON in which nothing stands raw that a terminal obeys or that hides how a name is really spelled. It
/// means the same.
pub(crate) fn json<R: Serialize + ?Sized>(reply: &R) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, Escaping);
    reply.serialize(&mut serializer)?;
    Ok(String::from_utf8(text).expect("JSON is UTF-8"))
}

/// Compact JSON with more escapes than it asks for.
struct Escaping;

impl serde_json::ser::Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for letter in fragment.chars() {
            if letter.is_control() || is_deceptive(letter) {
                for unit in letter.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            } else {
                write!(writer, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// Tells something beside the answer, on the standard error stream.
pub(crate) fn note(text: &str) {
    // When nobody can be told, the command still does its work.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

fn write(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// `text` without anything that a terminal obeys or that hides how a name is really spelled.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() || is_deceptive(letter) {
            safe.extend(letter.escape_unicode());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Direction marks, zero-width characters, and the separators that some terminals obey.
fn is_deceptive(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_and_holds_nothing_that_a_terminal_obeys() {
        let name =
            "a\u{9b}2J\u{7f} cod\u{202e}gpj.exe \u{e0041}\u{200b}\u{2028} Entwürfe 図面 😀 \"\\\n";
        let text = json(&[name]).unwrap();
        assert!(
            text.chars()
                .all(|letter| !letter.is_control() && !is_deceptive(letter)),
            "{text}"
        );
        assert!(text.contains("Entwürfe 図面 😀"), "{text}");
        let read: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, [name]);
    }

    #[test]
    fn names_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("cod\u{202e}gpj.exe"), "cod\\u{202e}gpj.exe");
        assert_eq!(printable("Entwürfe 図面 😀"), "Entwürfe 図面 😀");
    }
}
