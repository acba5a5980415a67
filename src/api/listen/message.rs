//! The body of a request: what it asks has to come in time, and when it has, its caller has asked and not only sent.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{HeaderMap, header::CONTENT_TYPE};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::credit::Credit;
use crate::{api::grpc::status, broker::Refusal};

/// A body that has to come whole within a while, and has one message where it is gRPC; of a stream, its first message.
///
/// Not promised: that what comes later on a stream comes in time. Who reads it has a patience of its own.
#[derive(Debug)]
pub(super) struct Message<B> {
    body: B,
    credit: Option<Arc<Credit>>,
    patience: Duration,
    /// `None` until it has to be waited for.
    wait: Option<Wait>,
    awaited: Awaited,
    /// Bytes that came.
    came: u64,
    /// When something that came later was last paid for.
    paid: Option<Instant>,
    /// Of gRPC, where a message may follow another.
    streams: bool,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    sleep: Pin<Box<Sleep>>,
}

/// What is to come before a request has been made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Awaited {
    /// A message of gRPC: as much of its prefix came, and said so long a message so far.
    Prefix { seen: u8, length: u32 },
    /// As many bytes of the message.
    Bytes(u64),
    /// The end, of what is not gRPC.
    End,
    /// The end, after the one message.
    EndOfMessage,
    /// Nothing more.
    Nothing,
}

// === impl Message ===

impl<B: Body<Data = Bytes> + Unpin> Message<B> {
    /// The body of a request with these headers, whose caller has this credit.
    pub(super) fn new(
        body: B,
        path: &str,
        headers: &HeaderMap,
        credit: Option<Arc<Credit>>,
        patience: Duration,
    ) -> Self {
        let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
        let is_grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let awaited = if is_grpc { Awaited::Prefix { seen: 0, length: 0 } } else { Awaited::End };
        let streams = STREAMS.contains(&path.rsplit('/').next().unwrap_or_default());
        let mut message = Self { body, credit, patience, wait: None, awaited, came: 0, paid: None, streams };
        if message.body.is_end_stream() {
            message.ended();
        }
        message
    }

    /// Takes what came; false when it may not come.
    fn data(&mut self, data: &[u8]) -> bool {
        self.came = self.came.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        match self.awaited {
            Awaited::Nothing => self.later(),
            Awaited::EndOfMessage => return data.is_empty(),
            Awaited::Prefix { .. } | Awaited::Bytes(_) | Awaited::End => self.awaited = self.awaited.after(data),
        }
        if self.awaited == Awaited::EndOfMessage {
            // The caller has asked.
            self.earn(FRAMES_OF_A_REQUEST);
            if self.streams {
                self.ended();
            }
        }
        true
    }

    fn ended(&mut self) {
        (self.awaited, self.wait) = (Awaited::Nothing, None);
    }

    /// What keeps a stream going is paid for by the time that it took, so that it is paid for also when it was read late.
    fn later(&mut self) {
        let now = Instant::now();
        let beats = self.paid.map_or(1, |paid| now.saturating_duration_since(paid).as_millis() / BEAT.as_millis());
        if beats > 0 {
            self.paid = Some(now);
            self.earn(u32::try_from(beats).unwrap_or(u32::MAX).min(BEATS_AT_ONCE) * FRAMES_OF_A_BEAT);
        }
    }

    fn earn(&self, frames: u32) {
        self.credit.iter().for_each(|credit| credit.earn(frames));
    }

    /// How long it may take, as far as it came.
    fn allowed(&self) -> Duration {
        self.patience + Duration::from_secs(self.came / BYTES_A_SECOND)
    }

    /// Ready when it took too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.allowed();
        let wait = self.wait.get_or_insert_with(|| {
            let since = Instant::now();
            Wait { since, sleep: Box::pin(sleep(patience)) }
        });
        loop {
            ready!(wait.sleep.as_mut().poll(cx));
            let due = wait.since + patience;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            // More has come meanwhile, and more is to be expected.
            wait.sleep.as_mut().reset(due.into());
        }
    }
}

impl<B> Body for Message<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if self.awaited == Awaited::Nothing => return Poll::Pending,
            Poll::Pending => {
                ready!(self.poll_late(cx));
                return Poll::Ready(Some(Err(late())));
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                if frame.data_ref().is_some_and(|data| !self.data(data)) {
                    return Poll::Ready(Some(Err(more())));
                }
            }
            None => self.ended(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Awaited {
    fn after(self, data: &[u8]) -> Self {
        match self {
            Self::Prefix { mut seen, mut length } => {
                let mut data = data;
                while seen < PREFIX_BYTES {
                    let Some((byte, rest)) = data.split_first() else { return Self::Prefix { seen, length } };
                    // The first says whether it is compressed; no compression is offered.
                    if seen > 0 {
                        length = length << 8 | u32::from(*byte);
                    }
                    (seen, data) = (seen + 1, rest);
                }
                Self::Bytes(length.into()).after(data)
            }
            Self::Bytes(left) => match left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX)) {
                0 => Self::EndOfMessage,
                left => Self::Bytes(left),
            },
            Self::End | Self::EndOfMessage | Self::Nothing => self,
        }
    }
}

fn late() -> Box<dyn Error + Send + Sync> {
    Box::new(status::of(&Refusal::invalid("request", "did not come whole in time; send headers and message together")))
}

fn more() -> Box<dyn Error + Send + Sync> {
    Box::new(status::of(&Refusal::invalid("request", "has more than the one message that this method takes")))
}

/// Methods whose callers send more than one message: those of the contract, of SDS and of reflection.
const STREAMS: [&str; 4] = ["HoldTask", "Apply", "StreamSecrets", "ServerReflectionInfo"];
/// Of gRPC before each message: a flag and four bytes of length.
const PREFIX_BYTES: u8 = 5;
/// What a whole request is worth: its headers, its message, and what a client's stack says beside (window updates, pings).
const FRAMES_OF_A_REQUEST: u32 = 8;
/// How often what comes later on a stream is paid for: twice for each heartbeat of the shortest kind.
const BEAT: Duration = Duration::from_millis(500);
/// The beat, and what a client's stack says to our answer.
const FRAMES_OF_A_BEAT: u32 = 4;
/// As many as a silent stream may be late.
const BEATS_AT_ONCE: u32 = 60;
/// The slowest that a long message may come.
const BYTES_A_SECOND: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeSet, VecDeque},
        convert::Infallible,
        future::poll_fn,
        task::Waker,
    };

    use http::HeaderValue;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::{foreign, pb};

    /// What comes, one after the other; `None` is waited for without end.
    struct Sent(VecDeque<Option<Vec<u8>>>);

    impl Body for Sent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(data.into())))),
                Some(None) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    const LONG: Duration = Duration::from_secs(3_600);
    const GRPC: &str = "application/grpc+proto";
    const STREAM: &str = "/mayfly.v1.Broker/HoldTask";
    const UNARY: &str = "/mayfly.v1.Broker/Issue";

    fn headers(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    fn sent(parts: impl IntoIterator<Item = Option<Vec<u8>>>) -> Sent {
        Sent(parts.into_iter().collect())
    }

    /// Polls as long as something comes; whether something is waited for.
    fn waits(body: &mut Message<Sent>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return false,
                Poll::Ready(Some(Err(error))) => panic!("{error}"),
                Poll::Pending => return true,
            }
        }
    }

    /// What a caller without credit has earned when all of this came.
    fn earned(kind: &'static str, parts: Sent) -> usize {
        let now = Instant::now();
        let credit = Arc::new(Credit::new(50, 1, now));
        while !credit.spend(1, now) {}
        credit.earn(1);
        waits(&mut Message::new(parts, STREAM, &headers(kind), Some(Arc::clone(&credit)), LONG));
        (0..100).take_while(|_| !credit.spend(1, now)).count()
    }

    #[tokio::test]
    async fn a_caller_has_asked_once_its_first_message_is_whole_however_it_comes() {
        let message = [&[0, 0, 0, 1, 4][..], &[7; 260]].concat();
        let whole = usize::try_from(FRAMES_OF_A_REQUEST).expect("few");
        for (length, step, want) in [(265, 265, whole), (265, 1, whole), (265, 64, whole), (264, 264, 0), (4, 1, 0)] {
            let parts = message[..length].chunks(step).map(|part| Some(part.to_vec()));
            assert_eq!(earned(GRPC, sent(parts.chain([None]))), want, "{length} bytes, {step} at a time");
        }
        assert_eq!(earned(GRPC, sent([Some(vec![0; 5]), None])), whole, "an empty message is one");
        assert_eq!(earned(GRPC, sent([Some(vec![0; 4])])), 0, "one that breaks off is none");
    }

    #[tokio::test]
    async fn what_is_no_call_and_what_asks_nothing_pays_for_no_frames() {
        let part = || Some(vec![0; 9]);
        assert_eq!(earned("text/plain", sent([part(), part()])), 0);
        assert_eq!(earned("text/plain", sent([])), 0);
        assert_eq!(earned(GRPC, sent([])), 0);
    }

    #[test]
    fn every_method_whose_callers_send_several_messages_is_known_and_no_other() {
        let sets = [
            pb::DESCRIPTORS,
            foreign::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let files = sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).expect("descriptors").file);
        let methods = files.flat_map(|file| file.service).flat_map(|service| service.method);
        let streams: BTreeSet<String> =
            methods.filter(|method| method.client_streaming()).map(|method| method.name().to_owned()).collect();
        assert_eq!(streams.iter().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(STREAMS));
    }

    #[tokio::test]
    async fn a_call_has_one_message_and_its_end_comes_in_time() {
        let message = || Some(vec![0, 0, 0, 0, 1, 9]);
        let refused = async |parts: Sent, patience| {
            let mut body = Message::new(parts, UNARY, &headers(GRPC), None, patience);
            loop {
                match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error.downcast_ref::<tonic::Status>().expect("a status").code() as i32,
                    None => break 0,
                }
            }
        };
        let invalid = tonic::Code::InvalidArgument as i32;
        assert_eq!(refused(sent([message()]), LONG).await, 0);
        assert_eq!(refused(sent([message(), Some(Vec::new())]), LONG).await, 0, "the end may come by itself");
        assert_eq!(refused(sent([message(), Some(vec![0])]), LONG).await, invalid, "more than it asks");
        assert_eq!(refused(sent([message(), None, None]), Duration::ZERO).await, invalid, "no end");
        let whole = usize::try_from(FRAMES_OF_A_REQUEST).expect("few");
        let (now, credit) = (Instant::now(), Arc::new(Credit::new(50, 1, Instant::now())));
        while !credit.spend(1, now) {}
        credit.earn(1);
        waits(&mut Message::new(sent([message(), None]), UNARY, &headers(GRPC), Some(Arc::clone(&credit)), LONG));
        assert_eq!((0..100).take_while(|_| !credit.spend(1, now)).count(), whole, "who has asked has, before the end");
    }

    #[tokio::test]
    async fn what_comes_later_on_a_stream_is_worth_some_frames_now_and_then_and_no_more() {
        let messages = |count| sent((0..count).map(|_| Some(vec![0; 5])).chain([None]));
        let beat = usize::try_from(FRAMES_OF_A_BEAT).expect("few");
        assert_eq!(earned(GRPC, messages(2)), earned(GRPC, messages(1)) + beat);
        assert_eq!(earned(GRPC, messages(50)), earned(GRPC, messages(2)));
    }

    #[tokio::test]
    async fn a_request_that_never_says_what_it_asks_is_refused_and_a_stream_that_has_asked_may_be_quiet() {
        let mut silent = Message::new(sent([None, None, None]), UNARY, &headers(GRPC), None, Duration::ZERO);
        let frame = poll_fn(|cx| Pin::new(&mut silent).poll_frame(cx)).await;
        let error = frame.expect("not the end").expect_err("refused");
        assert_eq!(error.downcast_ref::<tonic::Status>().map(tonic::Status::code), Some(tonic::Code::InvalidArgument));
        let mut asked = Message::new(sent([Some(vec![0; 5]), None]), STREAM, &headers(GRPC), None, Duration::ZERO);
        assert!(waits(&mut asked) && asked.wait.is_none());
    }

    #[tokio::test]
    async fn a_long_message_has_longer_as_far_as_it_came() {
        let minute = usize::try_from(BYTES_A_SECOND * 60).expect("fits");
        let parts = [vec![0, 0xff, 0xff, 0xff, 0xff], vec![0; minute]].map(Some);
        let mut body = Message::new(sent(parts.into_iter().chain([None])), UNARY, &headers(GRPC), None, LONG);
        assert_eq!(body.allowed(), LONG);
        assert!(waits(&mut body) && body.wait.is_some());
        assert_eq!(body.allowed(), LONG + Duration::from_secs(60));
    }
}
