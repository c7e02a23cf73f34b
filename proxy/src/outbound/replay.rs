//! A request's body that may have to be sent again: what was read of it is kept until it is too much, or the answer has begun.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a request, over all its attempts.
#[derive(Debug)]
pub(crate) struct Replay {
    shared: Option<Rc<RefCell<Shared>>>,
}

#[derive(Debug)]
struct Shared {
    body: Incoming,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    keeping: bool,
    /// Which attempt may read on: an earlier one that still lives must not.
    attempt: u32,
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    shared: Rc<RefCell<Shared>>,
    attempt: u32,
    at: usize,
    done: bool,
}

impl Replay {
    /// Wraps a request's body.
    pub(crate) fn of(body: Incoming) -> Self {
        if body.is_end_stream() {
            return Self { shared: None };
        }
        let shared = Shared { body, kept: Vec::new(), kept_bytes: 0, trailers: None, ended: false, keeping: true, attempt: 0 };
        Self { shared: Some(Rc::new(RefCell::new(shared))) }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.is_none()
    }

    /// Whether another attempt could send it whole.
    pub(crate) fn can_replay(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.borrow().keeping)
    }

    /// The body for the next attempt.
    pub(crate) fn attempt(&self) -> crate::body::Body {
        let Some(shared) = &self.shared else { return crate::body::Body::default() };
        let attempt = {
            let mut held = shared.borrow_mut();
            held.attempt += 1;
            held.attempt
        };
        Attempt { shared: Rc::clone(shared), attempt, at: 0, done: false }.into()
    }

    /// The answer has begun: nothing is sent again any more.
    pub(crate) fn settle(&self) {
        if let Some(shared) = &self.shared {
            shared.borrow_mut().keeping = false;
        }
    }
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let (at, attempt, done) = (self.at, self.attempt, self.done);
        let shared = Rc::clone(&self.shared);
        let mut shared = shared.borrow_mut();
        if done || shared.attempt != attempt {
            return Poll::Ready(None);
        }
        if let Some(bytes) = shared.kept.get(at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
        }
        if shared.ended {
            self.done = true;
            return Poll::Ready(shared.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = match ready!(Pin::new(&mut shared.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                shared.keeping = false;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                (shared.ended, self.done) = (true, true);
                return Poll::Ready(None);
            }
        };
        match frame.into_data() {
            Ok(bytes) => {
                if shared.keep(&bytes) {
                    self.at += 1;
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                shared.ended = true;
                shared.trailers = Some(trailers.clone());
                self.done = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        let all_sent = self.at >= shared.kept.len();
        self.done || (all_sent && shared.trailers.is_none() && (shared.ended || shared.body.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        let left: u64 = shared.kept.iter().skip(self.at).map(|bytes| bytes.len() as u64).sum();
        match shared.body.size_hint().exact() {
            Some(exact) => SizeHint::with_exact(left + exact),
            None => SizeHint::default(),
        }
    }
}

impl Shared {
    /// Keeps `bytes` for another attempt; past [`KEPT_MAX`] what was kept is let go and there is none.
    fn keep(&mut self, bytes: &Bytes) -> bool {
        if !self.keeping {
            return false;
        }
        self.kept_bytes += bytes.len();
        if self.kept_bytes > KEPT_MAX {
            self.keeping = false;
            return false;
        }
        self.kept.push(bytes.clone());
        true
    }
}

/// How much of a request's body is kept to be sent again; a longer one is sent once.
const KEPT_MAX: usize = 64 * 1024;
