//! Server-sent events, as far as the local API uses them: the `data` of each frame.
//!
//! Frames end with an empty line; comments (keep-alives) and other fields are skipped. See the
//! HTML standard, section "Server-sent events".

use super::{Answer, ClientError};

/// The frames of an answer, in order.
#[derive(Debug)]
pub(super) struct Frames {
    answer: Answer,
    lines: Lines,
}

impl Frames {
    pub(super) fn new(answer: Answer) -> Self {
        Self {
            answer,
            lines: Lines::default(),
        }
    }

    /// The data of the next frame; `None` at the end of the stream. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(frame) = self.lines.frame() {
                return Ok(Some(frame));
            }
            if self.lines.bytes.len() > FRAME_BYTES_MAX {
                return Err(ClientError::Cut);
            }
            match self.answer.piece().await? {
                Some(piece) => self.lines.bytes.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// No frame of the API comes near this.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// What has arrived and is not a whole frame yet.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    data: String,
}

impl Lines {
    fn frame(&mut self) -> Option<String> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() && !self.data.is_empty() {
                return Some(std::mem::take(&mut self.data));
            }
            if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let stream = ": hello\n\ndata: {\"a\":1}\n\nevent: x\ndata: two\ndata: lines\r\n\r\n";
        let mut lines = Lines::default();
        let mut frames = Vec::new();
        for byte in stream.bytes() {
            lines.bytes.push(byte);
            frames.extend(lines.frame());
        }
        assert_eq!(frames, ["{\"a\":1}", "two\nlines"]);
    }
}
