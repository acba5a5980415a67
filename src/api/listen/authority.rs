//! The authority that clients of a Unix socket send, made one that HTTP/2 has.
//!
//! Several gRPC libraries (grpc-core since 1.57, grpc-java, grpc-swift) send the socket's path as `:authority`, plain or
//! percent-encoded. That is none (RFC 9113 section 8.3.1, RFC 3986 section 3.2), and our HTTP/2 refuses the stream. A
//! Unix socket has no authority that anything could depend on, so what is none is made one before it is read: each
//! character that a host cannot have becomes another of the same length. Lengths stay, and so does the size of every
//! entry of the header table, so that both ends go on from the same state (RFC 7541 section 4.1).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A local connection whose requests come with an authority that is one.
#[derive(Debug)]
pub struct Mended<I> {
    io: I,
    reader: Reader,
}

/// Bytes on their way, and where in the protocol they are.
#[derive(Debug)]
struct Reader {
    /// What was read; up to `ready` it may be passed on.
    held: Vec<u8>,
    ready: usize,
    at: At,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    /// Before the client's preface is complete.
    Preface,
    /// Before a frame.
    Frame,
    /// Within a frame that is of no concern: so many bytes are left of it.
    Within(usize),
    /// Not HTTP/2: of no concern to its end.
    Beyond,
}

impl<I> Mended<I> {
    /// Over `io`, from its beginning.
    pub fn new(io: I) -> Self {
        Self { io, reader: Reader { held: Vec::new(), ready: 0, at: At::Preface } }
    }
}

impl Reader {
    /// Looks at what was read, as far as that is complete.
    fn scan(&mut self) {
        while self.step() {}
    }

    /// Passes one part on; false when more must be read first.
    fn step(&mut self) -> bool {
        let Some(fresh) = self.held.get_mut(self.ready..).filter(|fresh| !fresh.is_empty()) else { return false };
        match self.at {
            At::Beyond => self.ready = self.held.len(),
            At::Within(left) => {
                let passed = left.min(fresh.len());
                self.ready += passed;
                self.at = if passed == left { At::Frame } else { At::Within(left - passed) };
            }
            At::Preface => {
                let known = fresh.len().min(PREFACE.len());
                if fresh.get(..known) != PREFACE.get(..known) {
                    self.at = At::Beyond;
                } else if known == PREFACE.len() {
                    (self.ready, self.at) = (self.ready + known, At::Frame);
                } else {
                    return false;
                }
            }
            At::Frame => {
                let Some(([a, b, c, kind, flags, ..], _)) = fresh.split_first_chunk::<FRAME_HEAD>() else {
                    return false;
                };
                let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                let (kind, flags) = (*kind, *flags);
                if kind != HEADERS || length > FRAME_BYTES {
                    (self.ready, self.at) = (self.ready + FRAME_HEAD, At::Within(length));
                    if length == 0 {
                        self.at = At::Frame;
                    }
                    return true;
                }
                let Some(payload) = fresh.get_mut(FRAME_HEAD..FRAME_HEAD + length) else { return false };
                mend_headers(payload, flags);
                self.ready += FRAME_HEAD + length;
            }
        }
        true
    }

    /// Hands over what may be passed on.
    fn give(&mut self, to: &mut ReadBuf<'_>) {
        let count = self.ready.min(to.remaining());
        if let Some(part) = self.held.get(..count) {
            to.put_slice(part);
        }
        self.held.drain(..count);
        self.ready -= count;
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Mended<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, reader } = self.get_mut();
        loop {
            if reader.ready > 0 {
                reader.give(buf);
                return Poll::Ready(Ok(()));
            }
            if reader.at == At::Beyond && reader.held.is_empty() {
                return Pin::new(io).poll_read(cx, buf);
            }
            let mut chunk = [0; CHUNK_BYTES];
            let mut fresh = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut fresh))?;
            if fresh.filled().is_empty() {
                // The end: what is incomplete is for the reader to refuse.
                reader.ready = reader.held.len();
                if reader.ready == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            reader.held.extend_from_slice(fresh.filled());
            reader.scan();
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Mended<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// A HEADERS frame (RFC 9113 section 6.2). One that cannot be read is left as it is: it is refused further on.
fn mend_headers(payload: &mut [u8], flags: u8) {
    let (mut begin, mut end) = (0, payload.len());
    if flags & PADDED != 0 {
        begin += 1;
        end = end.saturating_sub(payload.first().copied().map_or(0, usize::from));
    }
    if flags & PRIORITY != 0 {
        begin += PRIORITY_BYTES;
    }
    if let Some(block) = payload.get_mut(begin..end.max(begin)) {
        let _unreadable = mend_fields(block);
    }
}

/// Field lines (RFC 7541 section 6), as far as they can be read.
fn mend_fields(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        let name = match first {
            // An indexed line, or another size of the table.
            0x80.. => {
                integer(block, &mut at, 7)?;
                continue;
            }
            0x20..0x40 => {
                integer(block, &mut at, 5)?;
                continue;
            }
            0x40..0x80 => integer(block, &mut at, 6)?,
            0..0x20 => integer(block, &mut at, 4)?,
        };
        let is_authority = match name {
            0 => {
                let (is_packed, range) = string(block, &mut at)?;
                let written = block.get(range)?;
                if is_packed { written == PACKED_NAME } else { written == NAME }
            }
            index => index == AUTHORITY_INDEX,
        };
        let (is_packed, range) = string(block, &mut at)?;
        if is_authority {
            let value = block.get_mut(range)?;
            if is_packed {
                mend_packed(value)?;
            } else {
                mend_plain(value);
            }
        }
    }
    Some(())
}

/// An integer (RFC 7541 section 5.1) of at most 2^28, more than any block has bytes.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let most = (1_usize << prefix) - 1;
    let first = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if first < most {
        return Some(first);
    }
    let mut value = most;
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string (RFC 7541 section 5.2): whether it is in Huffman code, and where it is.
fn string(block: &[u8], at: &mut usize) -> Option<(bool, std::ops::Range<usize>)> {
    let is_packed = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let begin = *at;
    *at = begin.checked_add(length).filter(|end| *end <= block.len())?;
    Some((is_packed, begin..*at))
}

fn mend_plain(value: &mut [u8]) {
    if !is_authority(value) {
        value.iter_mut().filter(|byte| !is_host(**byte)).for_each(|byte| *byte = b'-');
    }
}

/// A value in Huffman code (RFC 7541 appendix B). What has a character that none of a host has the length of stays.
fn mend_packed(value: &mut [u8]) -> Option<()> {
    let codes = unpack(value)?;
    let text: Vec<u8> = codes.iter().map(|code| code.symbol).collect();
    if is_authority(&text) {
        return Some(());
    }
    let bad = codes.iter().filter(|code| !is_host(code.symbol));
    let stand_ins: Vec<(usize, Code)> = bad
        .map(|code| {
            let mut stand_ins = STAND_INS.iter().filter_map(|symbol| code_of(*symbol));
            Some((code.at, stand_ins.find(|with| with.bits == code.bits)?))
        })
        .collect::<Option<_>>()?;
    for (begin, code) in stand_ins {
        for bit in 0..code.bits {
            let (place, is_set) = (begin + bit, code.word >> (code.bits - 1 - bit) & 1 == 1);
            let byte = value.get_mut(place / 8)?;
            let mask = 0x80 >> (place % 8);
            *byte = if is_set { *byte | mask } else { *byte & !mask };
        }
    }
    Some(())
}

/// One character in Huffman code.
#[derive(Clone, Copy, Debug)]
struct Code {
    symbol: u8,
    bits: usize,
    word: u32,
    /// Its first bit.
    at: usize,
}

fn code_of(symbol: u8) -> Option<Code> {
    let (bits, word) = *CODES.get(usize::from(symbol).checked_sub(FIRST)?)?;
    Some(Code { symbol, bits: usize::from(bits), word, at: 0 })
}

/// The characters of a value; `None` when it has one that is not visible ASCII, ends within one, or is longer than any
/// socket's path: each bit of it is looked up.
fn unpack(value: &[u8]) -> Option<Vec<Code>> {
    if value.len() > PACKED_MOST {
        return None;
    }
    let mut found = Vec::new();
    let (mut word, mut bits, mut begin) = (0_u32, 0_usize, 0_usize);
    for place in 0..value.len() * 8 {
        let bit = value.get(place / 8)? >> (7 - place % 8) & 1;
        (word, bits) = (word << 1 | u32::from(bit), bits + 1);
        if bits > LONGEST {
            return None;
        }
        let known = CODES.iter().position(|(length, code)| (usize::from(*length), *code) == (bits, word));
        if let Some(index) = known {
            let symbol = u8::try_from(FIRST + index).ok()?;
            found.push(Code { symbol, bits, word, at: begin });
            (word, bits, begin) = (0, 0, place + 1);
        }
    }
    // Filled up with less than a byte of ones.
    (bits < 8 && word == (1 << bits) - 1).then_some(found)
}

/// Whether it is one as our HTTP/2 reads it.
fn is_authority(value: &[u8]) -> bool {
    http::uri::Authority::try_from(value).is_ok()
}

fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// The longest frame that a client may send, since we allow no longer ones (RFC 9113 section 4.2).
const FRAME_BYTES: usize = 16 << 10;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// Of the static table (RFC 7541 appendix A).
const AUTHORITY_INDEX: usize = 1;
const NAME: &[u8] = b":authority";
/// [`NAME`] in Huffman code.
const PACKED_NAME: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
const CHUNK_BYTES: usize = 4 << 10;
/// Of a value in Huffman code: a path of 107 bytes (unix(7)), all of them percent-encoded, has 3 * 107 characters, and the
/// longest code of one of these has 7 bits.
const PACKED_MOST: usize = 512;
/// One for each length that a character of a host has.
const STAND_INS: &[u8] = b"a-jX";
/// The first character of [`CODES`].
const FIRST: usize = 0x20;
/// Bits of the longest of them.
const LONGEST: usize = 19;
/// Length and code of each visible ASCII character (RFC 7541 appendix B).
const CODES: [(u8, u32); 95] = [
    (6, 0x14),
    (10, 0x3f8),
    (10, 0x3f9),
    (12, 0xffa),
    (13, 0x1ff9),
    (6, 0x15),
    (8, 0xf8),
    (11, 0x7fa),
    (10, 0x3fa),
    (10, 0x3fb),
    (8, 0xf9),
    (11, 0x7fb),
    (8, 0xfa),
    (6, 0x16),
    (6, 0x17),
    (6, 0x18),
    (5, 0x0),
    (5, 0x1),
    (5, 0x2),
    (6, 0x19),
    (6, 0x1a),
    (6, 0x1b),
    (6, 0x1c),
    (6, 0x1d),
    (6, 0x1e),
    (6, 0x1f),
    (7, 0x5c),
    (8, 0xfb),
    (15, 0x7ffc),
    (6, 0x20),
    (12, 0xffb),
    (10, 0x3fc),
    (13, 0x1ffa),
    (6, 0x21),
    (7, 0x5d),
    (7, 0x5e),
    (7, 0x5f),
    (7, 0x60),
    (7, 0x61),
    (7, 0x62),
    (7, 0x63),
    (7, 0x64),
    (7, 0x65),
    (7, 0x66),
    (7, 0x67),
    (7, 0x68),
    (7, 0x69),
    (7, 0x6a),
    (7, 0x6b),
    (7, 0x6c),
    (7, 0x6d),
    (7, 0x6e),
    (7, 0x6f),
    (7, 0x70),
    (7, 0x71),
    (7, 0x72),
    (8, 0xfc),
    (7, 0x73),
    (8, 0xfd),
    (13, 0x1ffb),
    (19, 0x7fff0),
    (13, 0x1ffc),
    (14, 0x3ffc),
    (6, 0x22),
    (15, 0x7ffd),
    (5, 0x3),
    (6, 0x23),
    (5, 0x4),
    (6, 0x24),
    (5, 0x5),
    (6, 0x25),
    (6, 0x26),
    (6, 0x27),
    (5, 0x6),
    (7, 0x74),
    (7, 0x75),
    (6, 0x28),
    (6, 0x29),
    (6, 0x2a),
    (5, 0x7),
    (6, 0x2b),
    (7, 0x76),
    (6, 0x2c),
    (5, 0x8),
    (5, 0x9),
    (6, 0x2d),
    (7, 0x77),
    (7, 0x78),
    (7, 0x79),
    (7, 0x7a),
    (7, 0x7b),
    (15, 0x7ffe),
    (11, 0x7fc),
    (14, 0x3ffd),
    (13, 0x1ffd),
];

#[cfg(test)]
mod tests;
