//! Counts the HTTP/2 frames that a client sends, as their bytes go by (RFC 9113 sections 3.4 and 4.1).
//!
//! Nothing is checked here: the stack behind it does that, and ends a connection that breaks the rules.

/// Where in a client's bytes we are.
#[derive(Debug)]
pub(super) struct FrameCount {
    at: At,
    /// Of the frame whose head is being read.
    length: usize,
    is_data: bool,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// So much of the preface went by.
    Preface(usize),
    /// So much of a frame's head did.
    Head(usize),
    /// So much of its payload is to come.
    Payload(usize),
    /// This is not HTTP/2.
    Elsewhere,
}

impl FrameCount {
    /// At the beginning of a connection.
    pub(super) fn new() -> Self {
        Self { at: At::Preface(0), length: 0, is_data: false }
    }

    /// How many frames began with these bytes; long DATA frames are not counted, since each is paid for by what it brings.
    pub(super) fn passed(&mut self, mut bytes: &[u8]) -> u32 {
        let mut count = 0;
        while let Some((&byte, rest)) = bytes.split_first() {
            (self.at, bytes) = match self.at {
                At::Preface(seen) if PREFACE.get(seen) != Some(&byte) => (At::Elsewhere, rest),
                At::Preface(seen) if seen + 1 == PREFACE.len() => (At::Head(0), rest),
                At::Preface(seen) => (At::Preface(seen + 1), rest),
                At::Head(seen) => {
                    let at = self.head(seen, byte);
                    if seen + 1 == HEAD_BYTES && !(self.is_data && self.length >= LONG_BYTES) {
                        count += 1;
                    }
                    (at, rest)
                }
                At::Payload(left) => {
                    let (_, rest) = bytes.split_at_checked(left).unwrap_or((bytes, &[]));
                    let left = left.saturating_sub(bytes.len());
                    (if left == 0 { At::Head(0) } else { At::Payload(left) }, rest)
                }
                At::Elsewhere => return count,
            };
        }
        count
    }

    /// Takes one byte of a frame's head: three of the length, one of the type, one of flags, four of the stream.
    fn head(&mut self, seen: usize, byte: u8) -> At {
        match seen {
            0 => self.length = usize::from(byte),
            1 | 2 => self.length = self.length << 8 | usize::from(byte),
            3 => self.is_data = byte == DATA,
            _ => {}
        }
        match (seen + 1 == HEAD_BYTES, self.length) {
            (false, _) => At::Head(seen + 1),
            (true, 0) => At::Head(0),
            (true, length) => At::Payload(length),
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
/// A DATA frame from this length on is not counted.
const LONG_BYTES: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let bytes = u32::try_from(length).expect("short").to_be_bytes();
        // A payload that looks like heads of frames.
        [&bytes[1..], &[kind, 0, 0, 0, 0, 1], &vec![0; length]].concat()
    }

    fn counted(bytes: &[u8], step: usize) -> u32 {
        let mut frames = FrameCount::new();
        bytes.chunks(step).map(|part| frames.passed(part)).sum()
    }

    #[test]
    fn every_frame_counts_once_however_its_bytes_come() {
        let frames = [frame(4, 0), frame(1, 70), frame(0, 5), frame(6, 8), frame(3, 4), frame(1, 300)].concat();
        let sent = [PREFACE, &frames].concat();
        for step in 1..=sent.len() {
            assert_eq!(counted(&sent, step), 6, "{step} bytes at a time");
        }
    }

    #[test]
    fn long_data_is_free_and_everything_else_is_not() {
        for (kind, length, count) in [(0, 1_023, 1), (0, 1_024, 0), (0, 16_384, 0), (1, 1_024, 1), (9, 16_384, 1)] {
            let sent = [PREFACE, &frame(kind, length), &frame(6, 8)].concat();
            assert_eq!(counted(&sent, 4_096), count + 1, "type {kind} with {length} bytes");
        }
    }

    #[test]
    fn a_frame_counts_when_its_head_is_whole() {
        let sent = [PREFACE, &frame(1, 9)].concat();
        assert_eq!(counted(&sent[..PREFACE.len() + 8], 7), 0);
        assert_eq!(counted(&sent[..PREFACE.len() + 9], 7), 1);
    }

    #[test]
    fn what_is_not_http_2_has_no_frames() {
        let sent = [&b"PRI * HTTP/1.1\r\n\r\n"[..], &frame(1, 0), &frame(1, 0)].concat();
        assert_eq!(counted(&sent, 5), 0);
    }
}
