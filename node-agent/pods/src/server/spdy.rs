//! The little of SPDY/3.1 a client of a container runtime's streaming server needs: open streams, move data, notice
//! ends. Bytes in, bytes out; it must not know what the streams carry.
//!
//! Header blocks go out as stored (uncompressed) deflate blocks, which every inflater accepts, and those that come in
//! are skipped: the server only answers on streams that were opened here, so a stream's number says all. Both ends of
//! these sessions ignore SPDY's flow control; TCP's does the work.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest frame taken from the runtime; it writes at most 32 KiB at once.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest payload of a data frame (24 bits).
const DATA_BYTES_MAX: usize = 0xff_ffff;

const CONTROL: u32 = 0x8003_0000;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const FLAG_FIN: u8 = 1;

/// What the runtime said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A stream opened here is taken.
    Reply { stream: u32 },
    /// Bytes of a stream; with `end` the last ones.
    Data { stream: u32, end: bool, bytes: Bytes },
    /// A stream is broken off.
    Reset { stream: u32 },
    /// To be answered with the same bytes.
    Ping { echo: Bytes },
    /// Of no interest here.
    Other,
}

/// The session cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpdyError {
    /// The connection broke.
    #[error("connection: {source}")]
    Io {
        #[from]
        source: std::io::Error,
    },
    /// A frame beyond the limit.
    #[error("a frame of {bytes} bytes is larger than the {FRAME_BYTES_MAX} allowed")]
    TooLarge { bytes: usize },
}

/// Makes the frames that open streams. The header blocks of a session form one deflate stream, hence the state.
#[derive(Default)]
pub(super) struct Opener {
    opened: u32,
}

impl Opener {
    /// The next stream's number (odd, rising) and the frame that opens it. Names must be lower case.
    pub fn open(&mut self, headers: &[(&str, String)]) -> (u32, Bytes) {
        let stream = self.opened * 2 + 1;
        let block = self.deflate(&header_block(headers));
        self.opened += 1;
        let mut frame = BytesMut::with_capacity(18 + block.len());
        frame.put_u32(CONTROL | u32::from(SYN_STREAM));
        frame.put_u32(length(block.len() + 10));
        frame.put_u32(stream);
        // No associated stream, highest priority, no credential slot.
        frame.put_u32(0);
        frame.put_u16(0);
        frame.put_slice(&block);
        (stream, frame.freeze())
    }

    /// A stored block with the text, then an empty one: inflaters hand out what they have at an empty block.
    fn deflate(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 12);
        if self.opened == 0 {
            out.extend([0x78, 0x01]);
        }
        for chunk in text.chunks(usize::from(u16::MAX)) {
            let size = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
            out.push(0);
            out.extend(size.to_le_bytes());
            out.extend((!size).to_le_bytes());
            out.extend(chunk);
        }
        out.extend([0, 0, 0, 0xff, 0xff]);
        out
    }
}

fn header_block(headers: &[(&str, String)]) -> Vec<u8> {
    let mut block = Vec::new();
    block.put_u32(length(headers.len()));
    for (name, value) in headers {
        for text in [*name, value.as_str()] {
            block.put_u32(length(text.len()));
            block.put_slice(text.as_bytes());
        }
    }
    block
}

/// Lengths here are of frames and headers made here, far below the limit of any field.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Frames that carry `bytes`; with `end`, the last of them ends this side of the stream.
pub(super) fn data(stream: u32, bytes: &[u8], end: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    loop {
        let (chunk, later) = rest.split_at(rest.len().min(DATA_BYTES_MAX));
        rest = later;
        let flags = if end && rest.is_empty() { FLAG_FIN } else { 0 };
        out.put_u32(stream);
        out.put_u32(u32::from(flags) << 24 | length(chunk.len()));
        out.put_slice(chunk);
        if rest.is_empty() {
            return out.freeze();
        }
    }
}

/// The answer to a ping.
pub(super) fn pong(echo: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + echo.len());
    out.put_u32(CONTROL | u32::from(PING));
    out.put_u32(length(echo.len()));
    out.put_slice(echo);
    out.freeze()
}

/// The next frame; `None` at the end of the connection.
///
/// # Errors
/// When the connection breaks within a frame or a frame is too large.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, SpdyError> {
    let mut head = [0; 8];
    if let Err(error) = from.read_exact(&mut head).await {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error.into()),
        };
    }
    let (first, second) = head.split_at(4);
    let word = |bytes: &[u8]| bytes.iter().fold(0_u32, |w, b| w << 8 | u32::from(*b));
    let (first, second) = (word(first), word(second));
    let size = (second & 0xff_ffff) as usize;
    if size > FRAME_BYTES_MAX {
        return Err(SpdyError::TooLarge { bytes: size });
    }
    let mut payload = BytesMut::zeroed(size);
    from.read_exact(&mut payload).await?;
    let payload = payload.freeze();
    let end = second >> 24 & u32::from(FLAG_FIN) != 0;
    if first >> 31 == 0 {
        return Ok(Some(Frame::Data { stream: first, end, bytes: payload }));
    }
    let stream = payload.get(..4).map(|b| word(b) & 0x7fff_ffff);
    Ok(Some(match (u16::try_from(first & 0xffff), stream) {
        (Ok(SYN_REPLY), Some(stream)) => Frame::Reply { stream },
        (Ok(RST_STREAM), Some(stream)) => Frame::Reset { stream },
        (Ok(PING), Some(_)) => Frame::Ping { echo: payload },
        _ => Frame::Other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_get_rising_odd_numbers_and_one_deflate_stream() {
        let mut opener = Opener::default();
        let (first, frame) = opener.open(&[("streamtype", "error".into())]);
        let (second, later) = opener.open(&[("streamtype", "stdin".into())]);
        assert_eq!((first, second), (1, 3));
        assert_eq!(&frame[..4], [0x80, 3, 0, 1]);
        assert_eq!(frame.len(), 8 + u32::from_be_bytes([0, frame[5], frame[6], frame[7]]) as usize);
        assert_eq!(&frame[18..20], [0x78, 0x01], "the deflate header comes once");
        assert_eq!(later[18], 0, "then stored blocks follow");
        let block = header_block(&[("streamtype", "error".into())]);
        assert_eq!(&frame[25..25 + block.len()], block.as_slice());
        assert_eq!(&frame[frame.len() - 5..], [0, 0, 0, 0xff, 0xff]);
    }

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let mut wire = Vec::new();
        wire.extend([0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 5]);
        wire.extend(data(5, b"hello", false));
        wire.extend(data(5, b"", true));
        wire.extend([0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 1]);
        wire.extend(pong(&[0, 0, 0, 9]));
        let mut wire = wire.as_slice();
        let mut seen = Vec::new();
        while let Some(frame) = read(&mut wire).await.unwrap() {
            seen.push(frame);
        }
        let bytes = |text: &'static [u8]| Bytes::from_static(text);
        let want = [
            Frame::Reply { stream: 5 },
            Frame::Data { stream: 5, end: false, bytes: bytes(b"hello") },
            Frame::Data { stream: 5, end: true, bytes: bytes(b"") },
            Frame::Reset { stream: 5 },
            Frame::Ping { echo: bytes(&[0, 0, 0, 9]) },
        ];
        assert_eq!(seen, want);
    }

    proptest::proptest! {
        #![proptest_config(crate::fuzz_cases(500))]

        #[test]
        fn any_bytes_are_frames_an_error_or_the_end(
            wire in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            sizes in proptest::collection::vec(0_u8..40, 0..6),
        ) {
            // Bytes as they come, and the same behind heads of the right form.
            let mut formed = Vec::new();
            let mut rest = wire.iter().copied();
            for (kind, size) in sizes.iter().enumerate() {
                formed.extend([0x80, 3, 0, kind as u8, 0, 0, 0, *size]);
                formed.extend(rest.by_ref().take(usize::from(*size)));
            }
            for mut wire in [wire.as_slice(), formed.as_slice()] {
                let mut left = wire.len();
                futures::executor::block_on(async {
                    while let Ok(Some(_)) = read(&mut wire).await {
                        assert!(wire.len() < left, "a frame is read from at least its head");
                        left = wire.len();
                    }
                });
            }
        }
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_ends_the_session() {
        let mut wire: &[u8] = &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff];
        assert!(matches!(read(&mut wire).await, Err(SpdyError::TooLarge { .. })));
    }
}
