//! One connection from accept to close: TLS, protocol, requests, watchdog.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::bounds;
use crate::routes::Routes;
use crate::service::{Body, BoxError, Peer, Request};
use crate::stream::{Activity, InFlight, Stream, Transport, Verdict};

/// What every connection of a door shares.
pub(crate) struct Shared {
    pub(crate) routes: Routes,
    pub(crate) tls: Option<tokio_rustls::TlsAcceptor>,
    pub(crate) max_concurrent_streams: u32,
}

/// Serves `socket` until it closes, stalls, or `closing` turns true and its requests are done.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    mut closing: watch::Receiver<bool>,
) {
    // Answers are small and complete: waiting to fill a packet only delays them.
    let _ = socket.set_nodelay(true);
    let activity = Activity::new();
    let opening = timeout(bounds::HANDSHAKE_TIMEOUT, async {
        let transport = match &shared.tls {
            None => Transport::Plain(socket),
            Some(tls) => Transport::Tls(Box::new(tls.accept(socket).await?)),
        };
        Stream::sniff(transport, activity.clone()).await
    });
    let mut opening = pin!(opening);
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = closed(&mut closing) => match timeout(bounds::LAST_WORDS, opening).await {
            Ok(opened) => opened,
            Err(_) => return,
        },
    };
    let (stream, http2) = match opened {
        Ok(Ok(Some(stream))) => stream,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            debug!(%peer, %error, "connection failed while it opened");
            return;
        }
        Err(_) => {
            debug!(%peer, "connection said nothing in time");
            return;
        }
    };
    let io = TokioIo::new(stream);
    let in_requests = activity.clone();
    let routes = shared.clone();
    let service = service_fn(move |mut request: Request| {
        let in_flight = in_requests.request();
        let shared = routes.clone();
        request.extensions_mut().insert(Peer(peer));
        async move {
            let response = shared.routes.answer(request).await;
            Ok::<_, Infallible>(response.map(|body| Counted {
                body,
                _in_flight: in_flight,
            }))
        }
    });
    let result = if http2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(bounds::HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(bounds::HTTP2_CONNECTION_WINDOW_BYTES)
            .max_frame_size(bounds::HTTP2_MAX_FRAME_BYTES)
            .max_concurrent_streams(shared.max_concurrent_streams)
            .max_header_list_size(bounds::MAX_HEADER_BYTES as u32)
            .max_pending_accept_reset_streams(bounds::HTTP2_MAX_PENDING_RESETS)
            .max_send_buf_size(bounds::HTTP2_SEND_BUFFER_BYTES)
            .keep_alive_interval(bounds::HTTP2_PING_INTERVAL)
            .keep_alive_timeout(bounds::HTTP2_PING_TIMEOUT)
            .serve_connection(io, service);
        watch_over(connection, |c| c.graceful_shutdown(), &activity, false, closing).await
    } else {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            // The watchdog times heads from their first byte; hyper's timer would count the pause between requests too.
            .header_read_timeout(None)
            .max_headers(bounds::MAX_HEADERS)
            .max_header_size(bounds::MAX_HEADER_BYTES)
            .max_buf_size(bounds::HTTP1_BUFFER_BYTES)
            .serve_connection(io, service);
        watch_over(connection, |c| c.graceful_shutdown(), &activity, true, closing).await
    };
    if let Err(error) = result {
        debug!(%peer, %error, "connection ended early");
    }
}

/// Resolves when the door closes, also when its owner is gone.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Drives a connection; ends it when it stalls, and asks it to finish when it idles or the door closes.
async fn watch_over<C>(
    connection: C,
    finish: impl Fn(Pin<&mut C>),
    activity: &Activity,
    heads: bool,
    mut closing: watch::Receiver<bool>,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    while let Verdict::Wait(pause) = activity.judge(heads) {
        tokio::select! {
            done = connection.as_mut() => return done,
            () = sleep(pause) => {}
            // The caller of `shutdown` bounds how long requests in flight may still take.
            () = closed(&mut closing) => {
                // Told to finish, hyper drops a connection of which it has not parsed a head, although one may be on its way.
                let begun = poll_fn(|cx| match connection.as_mut().poll(cx) {
                    Poll::Ready(done) => Poll::Ready(Some(done)),
                    Poll::Pending if activity.is_fresh() => Poll::Pending,
                    Poll::Pending => Poll::Ready(None),
                });
                if let Ok(Some(done)) = timeout(bounds::LAST_WORDS, begun).await {
                    return done;
                }
                finish(connection.as_mut());
                return connection.await;
            }
        }
    }
    if activity.judge(heads) == Verdict::Stalled {
        return Ok(());
    }
    finish(connection.as_mut());
    // Whoever idles and then does not let go is dropped.
    timeout(bounds::LINGER, connection).await.unwrap_or(Ok(()))
}

/// A response body that keeps its request in flight until the last byte is handed over.
struct Counted {
    body: Body,
    _in_flight: InFlight,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
