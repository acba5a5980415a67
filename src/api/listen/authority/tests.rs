use tokio::io::AsyncReadExt;

use super::*;

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// What comes out of a reader that is given `bytes` in pieces of `piece`.
async fn passed(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut io = in_pieces(bytes, piece);
    let mut out = Vec::new();
    io.read_to_end(&mut out).await.expect("reads");
    out
}

fn in_pieces(bytes: &[u8], piece: usize) -> Mended<Pieces<'_>> {
    Mended::new(Pieces { bytes, piece })
}

/// Gives few bytes at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (part, rest) = self.bytes.split_at(self.bytes.len().min(self.piece).min(buf.remaining()));
        buf.put_slice(part);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
}

fn text(value: &[u8]) -> Vec<u8> {
    [&[u8::try_from(value.len()).expect("short")], value].concat()
}

fn packed(value: &[u8]) -> Vec<u8> {
    let mut text = text(value);
    text[0] |= 0x80;
    text
}

/// Field lines as several libraries write them: with `:path` beside, which has slashes of its own.
fn lines(authority: &[u8]) -> Vec<u8> {
    [&[0x83, 0x86, 0x44][..], &text(b"/a/b%c"), authority, &[0x40], &text(b"te"), &text(b"trailers")].concat()
}

/// Paths of sockets as authorities, and what becomes of them. The packed ones are Huffman code (RFC 7541 appendix B).
const CASES: [(&[u8], &[u8], bool); 6] = [
    (b"%2Ftmp%2Fagent.sock", b"-2Ftmp-2Fagent.sock", false),
    (b"/tmp/agent.sock", b"-tmp-agent.sock", false),
    (b"localhost", b"localhost", false),
    (b"[::1]:80", b"[::1]:80", false),
    (
        &[0x61, 0x34, 0xd6, 0xc0, 0xe6, 0x2d, 0x49, 0x5d, 0x07, 0x27, 0x5f],
        &[0x59, 0x34, 0xd6, 0xb0, 0xe6, 0x2d, 0x49, 0x5d, 0x07, 0x27, 0x5f],
        true,
    ),
    // www.example.com, of RFC 7541 appendix C.4.1.
    (
        &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
        &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
        true,
    ),
];

#[tokio::test]
async fn an_authority_that_is_none_becomes_one_of_the_same_length_and_nothing_else_changes() {
    for (sent, read, is_packed) in CASES {
        let value = |bytes: &[u8]| if is_packed { packed(bytes) } else { text(bytes) };
        // By the static table's index with and without indexing, and by name, plain and packed.
        let names: [&[u8]; 5] = [
            &[0x41],
            &[0x01],
            &[0x11],
            &[&[0x40][..], &text(NAME)].concat(),
            &[&[0x40][..], &packed(PACKED_NAME)].concat(),
        ];
        for name in names {
            let line = |bytes: &[u8]| lines(&[name, &value(bytes)].concat());
            for (flags, before, after) in [(4, vec![], vec![]), (0x2c, vec![3, 0, 0, 0, 0, 16], vec![0; 3])] {
                let frames = |bytes: &[u8]| {
                    let headers = frame(HEADERS, flags, &[&before[..], &line(bytes), &after].concat());
                    [PREFACE, SETTINGS, &headers, &frame(0, 1, b"\x00/%"), &headers].concat()
                };
                for piece in [1, 10, 4_096] {
                    assert_eq!(passed(&frames(sent), piece).await, frames(read), "{name:?} {flags} {piece}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_http_2_or_malformed_passes_as_it_is() {
    let http1 = b"GET /x%2F HTTP/1.1\r\nHost: /tmp/x\r\n\r\n".to_vec();
    let half = [PREFACE, SETTINGS, &frame(HEADERS, 4, &lines(b"\x41\x0f/tmp"))[..20]].concat();
    let beyond = [PREFACE, &frame(HEADERS, 0x2c, &[200, 0, 0, 0, 0, 0])].concat();
    let cut_short = [PREFACE, &frame(HEADERS, 4, &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, b'/'])].concat();
    // A character that no character of a host has the length of: `?`, ten bits.
    let question = [PREFACE, &frame(HEADERS, 4, &[0x41, 0x82, 0xff, 0x3f])].concat();
    for bytes in [http1, half, beyond, cut_short, question, PREFACE[..7].to_vec(), vec![]] {
        for piece in [1, 4_096] {
            assert_eq!(passed(&bytes, piece).await, bytes);
        }
    }
}

#[test]
fn a_packed_authority_is_mended_up_to_the_length_that_a_path_can_have_and_one_that_is_longer_costs_nothing() {
    // Four slashes (`011000` each) in three bytes.
    let slashes = |count: usize| [0x61, 0x86, 0x18].repeat(count);
    for (sent, is_mended) in [(slashes(PACKED_MOST / 3), true), (slashes(PACKED_MOST / 3 + 1), false)] {
        let mut value = sent.clone();
        assert_eq!(mend_packed(&mut value).is_some(), is_mended);
        assert_eq!((value.len(), value != sent), (sent.len(), is_mended));
    }
}

#[test]
fn every_header_block_is_read_to_its_end_or_left() {
    // Whatever the bytes: no panic, and no byte more or less.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for length in 0..400 {
        let bytes: Vec<u8> = (0..length % 97)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                u8::try_from(seed & 0xff).expect("a byte")
            })
            .collect();
        for flags in [0, PADDED, PRIORITY, PADDED | PRIORITY] {
            let mut mended = bytes.clone();
            mend_headers(&mut mended, flags);
            assert_eq!(mended.len(), bytes.len());
        }
    }
}
