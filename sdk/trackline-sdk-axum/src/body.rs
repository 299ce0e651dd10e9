//! The response body as the layer hands it on: counted, and ending the request's span with its last byte.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::layer::Finish;

pin_project! {
    /// A response body that reports its end to the request's span. Dropped before its end, it reports that too.
    pub struct TrackedBody<B: Body> {
        #[pin]
        inner: Inner<B>,
        finish: Option<Finish>,
        expected: Option<u64>,
        sent: u64,
    }

    impl<B: Body> PinnedDrop for TrackedBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let complete = this.inner.is_end_stream() || this.expected == Some(this.sent);
            let this = this.project();
            if let Some(finish) = this.finish.take() {
                finish.body_ended(*this.sent, complete);
            }
        }
    }
}

pin_project! {
    #[project = InnerProjected]
    enum Inner<B> {
        /// The handler's own body.
        Handler { #[pin] body: B },
        /// The answer to a panic.
        Text { text: Option<Bytes> },
    }
}

impl<B: Body> Inner<B> {
    fn is_end_stream(&self) -> bool {
        match self {
            Inner::Handler { body } => body.is_end_stream(),
            Inner::Text { text } => text.is_none(),
        }
    }
}

impl<B: Body> TrackedBody<B> {
    pub(crate) fn new(body: B, finish: Finish) -> TrackedBody<B> {
        TrackedBody {
            expected: body.size_hint().exact(),
            inner: Inner::Handler { body },
            finish: Some(finish),
            sent: 0,
        }
    }

    pub(crate) fn text(text: String, finish: Finish) -> TrackedBody<B> {
        TrackedBody {
            expected: Some(text.len() as u64),
            inner: Inner::Text {
                text: Some(Bytes::from(text)),
            },
            finish: Some(finish),
            sent: 0,
        }
    }
}

impl<B> Body for TrackedBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let polled = match this.inner.project() {
            InnerProjected::Text { text } => Poll::Ready(text.take().map(|text| Ok(Frame::data(B::Data::from(text))))),
            InnerProjected::Handler { body } => {
                // A streamed body still runs the application's code; what it logs belongs to the request.
                let _inside = this.finish.as_ref().map(|finish| finish.enter());
                body.poll_frame(task)
            }
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    *this.sent += data.remaining() as u64;
                }
            }
            Poll::Ready(end) => {
                if let Some(finish) = this.finish.take() {
                    finish.body_ended(*this.sent, end.is_none());
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Handler { body } => body.size_hint(),
            Inner::Text { text } => SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64)),
        }
    }
}
