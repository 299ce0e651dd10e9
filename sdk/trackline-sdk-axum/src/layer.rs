//! The tower layer around a service: tracking ID in and out, server span, request log line (SPEC T2–T6, S5, L6).

use std::any::Any;
use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, ContextGuard, KeyValue, StringValue};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Level;
use trackline_sdk::request::RequestState;
use trackline_sdk::{Field, Telemetry, Trust, w3c};

use crate::body::TrackedBody;
use crate::health::HEALTH_PATHS;
use crate::mask;
use crate::tracking::{TrackingId, X_TRACKING_ID};

/// Gives every request a server span, a tracking ID and a log line. See [`crate::instrument`].
#[derive(Debug, Clone, Default)]
pub struct TrackingLayer {
    telemetry: Option<Telemetry>,
    old_names: bool,
    /// Share of requests whose logs below WARN are kept, by route.
    log_shares: Arc<[(String, f64)]>,
}

impl TrackingLayer {
    /// A layer that uses the process's telemetry, also if that is turned on later.
    pub fn new() -> TrackingLayer {
        TrackingLayer::default()
    }

    /// A layer that uses a telemetry of its own.
    pub fn with(telemetry: Telemetry) -> TrackingLayer {
        TrackingLayer {
            telemetry: Some(telemetry),
            ..TrackingLayer::default()
        }
    }

    /// Keeps what is logged below WARN for only a `share` (0.0 to 1.0) of the requests to `route`, for endpoints that are
    /// called too often (SPEC L5). Their spans, WARN and ERROR stay.
    pub fn sample_logs(mut self, route: impl Into<String>, share: f64) -> TrackingLayer {
        let more = [(route.into(), share)];
        self.log_shares = self.log_shares.iter().cloned().chain(more).collect();
        self
    }

    /// Whether spans also carry `http.method`, `http.url`, `http.status_code` and `http.response.size`.
    pub fn old_attribute_names(mut self, on: bool) -> TrackingLayer {
        self.old_names = on;
        self
    }
}

impl<S> Layer<S> for TrackingLayer {
    type Service = TrackingService<S>;

    fn layer(&self, inner: S) -> TrackingService<S> {
        TrackingService {
            inner,
            settings: self.clone(),
        }
    }
}

/// A service with a [`TrackingLayer`] around it.
#[derive(Debug, Clone)]
pub struct TrackingService<S> {
    inner: S,
    settings: TrackingLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for TrackingService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Response = Response<TrackedBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let telemetry = match &self.settings.telemetry {
            Some(telemetry) => telemetry.clone(),
            None => Telemetry::global().clone(),
        };
        let finish = Finish::begin(telemetry, &self.settings, &request);
        let id = TrackingId(trackline_sdk::TrackingId::of(&finish.context));
        request.extensions_mut().insert(id);
        let called = {
            let _inside = finish.enter();
            catch_unwind(AssertUnwindSafe(|| self.inner.call(request)))
        };
        ResponseFuture {
            inner: match called {
                Ok(future) => Progress::Running { future },
                Err(panic) => Progress::Panicked { panic: Some(panic) },
            },
            finish: Some(finish),
        }
    }
}

pin_project! {
    /// The response of a tracked service. Dropped before it is ready, it says on the span that the caller went away.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Progress<F>,
        finish: Option<Finish>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(finish) = this.project().finish.take() {
                finish.cancelled();
            }
        }
    }
}

pin_project! {
    #[project = ProgressProjected]
    enum Progress<F> {
        Running { #[pin] future: F },
        Panicked { panic: Option<Box<dyn Any + Send>> },
    }
}

impl<F, ResBody, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Body,
    ResBody::Data: From<Bytes>,
{
    type Output = Result<Response<TrackedBody<ResBody>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = {
            let _inside = this.finish.as_ref().map(|finish| finish.enter());
            match this.inner.project() {
                ProgressProjected::Running { future } => match catch_unwind(AssertUnwindSafe(|| future.poll(task))) {
                    Ok(polled) => Ok(ready!(polled)),
                    Err(panic) => Err(panic),
                },
                ProgressProjected::Panicked { panic } => {
                    Err(panic.take().unwrap_or_else(|| Box::new("polled after its end")))
                }
            }
        };
        let Some(mut finish) = this.finish.take() else {
            // Polled after completion, which the contract of futures forbids.
            return Poll::Pending;
        };
        let id = finish.header();
        Poll::Ready(match outcome {
            Ok(Ok(response)) => {
                let (mut head, body) = response.into_parts();
                finish.responded(head.status, &head.headers);
                head.headers.insert(X_TRACKING_ID, id);
                Ok(Response::from_parts(head, TrackedBody::new(body, finish)))
            }
            Ok(Err(error)) => {
                finish.failed();
                Err(error)
            }
            Err(panic) => {
                let text = finish.panicked(&*panic);
                let mut response = Response::new(TrackedBody::text(text, finish));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(X_TRACKING_ID, id);
                Ok(response)
            }
        })
    }
}

/// One request on its way: everything that its span and its log line need at the end. Ends the span when consumed.
pub(crate) struct Finish {
    telemetry: Telemetry,
    context: Context,
    state: RequestState,
    started: Instant,
    method: Cow<'static, str>,
    /// Shared by the span's attributes and the log line, as are the next two.
    path: Arc<str>,
    user_agent: Option<Arc<str>>,
    client: Option<Arc<str>>,
    request_bytes: Option<u64>,
    status: Option<StatusCode>,
    content_type: Option<Arc<str>>,
    old_names: bool,
    probe: bool,
    quiet: bool,
}

/// What nginx logs when the caller went away before the answer; no response has this status.
const CANCELLED: u16 = 499;
/// Attributes of a server span at its start, for one allocation.
const ATTRIBUTES: usize = 16;
/// Bytes of a header that are kept: callers choose their length.
const MAX_HEADER_TEXT: usize = 512;
/// Bytes of a path that are kept.
const MAX_PATH: usize = 2_048;

impl Finish {
    fn begin<B>(telemetry: Telemetry, settings: &TrackingLayer, request: &Request<B>) -> Finish {
        let headers = request.headers();
        let uri = request.uri();
        let (parent, suggested, link) = caller(telemetry.trust(), headers);

        let method = method_name(request.method());
        let path: Arc<str> = cut(uri.path(), MAX_PATH).into();
        let route = request.extensions().get::<MatchedPath>();
        let quiet = !settings.log_shares.is_empty() && {
            let endpoint = route.map_or(&*path, |route| route.as_str());
            let share = settings.log_shares.iter().find(|(route, _)| route == endpoint);
            share.is_some_and(|(_, share)| fastrand::f64() >= *share)
        };
        let state = RequestState::new(telemetry.clone(), quiet);
        let parent = parent.with_value(state.clone());
        let user_agent = text_of(headers, USER_AGENT).map(Arc::<str>::from);
        let client = request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .map(|ConnectInfo(address)| Arc::<str>::from(mask::network(address.ip())));
        let name = match route {
            Some(route) => format!("{method} {}", route.as_str()),
            None => method.clone().into_owned(),
        };
        let mut attributes = Vec::with_capacity(ATTRIBUTES);
        attributes.push(KeyValue::new("http.request.method", method.clone()));
        attributes.push(KeyValue::new("url.path", StringValue::from(path.clone())));
        attributes.push(KeyValue::new("url.scheme", "http"));
        attributes.push(KeyValue::new("network.protocol.version", version(request.version())));
        if let Some(route) = route {
            attributes.push(KeyValue::new("http.route", route.as_str().to_owned()));
        }
        if let Some(agent) = &user_agent {
            attributes.push(KeyValue::new("user_agent.original", StringValue::from(agent.clone())));
        }
        if let Some(client) = &client {
            attributes.push(KeyValue::new("client.address", StringValue::from(client.clone())));
        }
        if settings.old_names {
            attributes.push(KeyValue::new("http.method", method.clone()));
            attributes.push(KeyValue::new("http.url", StringValue::from(path.clone())));
        }
        let context = trackline_sdk::start_server_span(&telemetry, &parent, suggested, name, attributes, link);
        Finish {
            probe: HEALTH_PATHS.contains(&&*path),
            telemetry,
            context,
            state,
            started: Instant::now(),
            method,
            path,
            user_agent,
            client,
            request_bytes: length_of(headers),
            status: None,
            content_type: None,
            old_names: settings.old_names,
            quiet,
        }
    }

    /// Makes the request's span the current one of this thread.
    pub(crate) fn enter(&self) -> ContextGuard {
        self.context.clone().attach()
    }

    fn header(&self) -> HeaderValue {
        let id = trackline_sdk::TrackingId::of(&self.context);
        HeaderValue::from_str(id.encode(&mut [0; 32]))
            .unwrap_or_else(|_| HeaderValue::from_static(trackline_sdk::NO_TRACE))
    }

    fn responded(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        self.content_type = text_of(headers, CONTENT_TYPE).map(Arc::from);
    }

    /// Records a panic and returns the body of the answer.
    fn panicked(&mut self, panic: &(dyn Any + Send)) -> String {
        self.status = Some(StatusCode::INTERNAL_SERVER_ERROR);
        self.content_type = Some("application/json".into());
        let _inside = self.enter();
        let message = trackline_sdk::panics::caught(&self.telemetry, panic);
        let span = self.context.span();
        span.set_attribute(KeyValue::new("error.type", trackline_sdk::panics::PANIC));
        span.set_status(Status::error(message));
        let id = trackline_sdk::TrackingId::of(&self.context);
        format!("{{\"error\":\"internal server error\",\"tracking_id\":\"{id}\"}}")
    }

    fn failed(mut self) {
        self.status = Some(StatusCode::INTERNAL_SERVER_ERROR);
        self.end(None, Some("service_error"));
    }

    fn cancelled(self) {
        self.end(None, Some("cancelled"));
    }

    pub(crate) fn body_ended(self, bytes: u64, complete: bool) {
        let complete = complete || self.method == "HEAD";
        self.end(Some(bytes), (!complete).then_some("response_incomplete"));
    }

    fn end(self, response_bytes: Option<u64>, failure: Option<&'static str>) {
        let status = self.status.map_or(CANCELLED, |status| status.as_u16());
        let server_error = self.status.is_some_and(|status| status.is_server_error());
        let identity = self.state.take_identity();
        let span = self.context.span();
        if span.is_recording() {
            if self.status.is_some() {
                span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
                if self.old_names {
                    span.set_attribute(KeyValue::new("http.status_code", i64::from(status)));
                }
            }
            if let Some(bytes) = response_bytes {
                span.set_attribute(KeyValue::new("http.response.body.size", bytes as i64));
                if self.old_names {
                    span.set_attribute(KeyValue::new("http.response.size", bytes as i64));
                }
            }
            if let Some(id) = &identity.user_id {
                span.set_attribute(KeyValue::new("user.id", id.clone()));
            }
            if let Some(id) = &identity.session_id {
                span.set_attribute(KeyValue::new("session.id", id.clone()));
            }
            if let Some(failure) = failure {
                span.set_attribute(KeyValue::new("error.type", failure));
            }
            if server_error || failure.is_some() {
                // An error that was recorded before keeps its description: any text wins over none.
                span.set_status(Status::error(failure.unwrap_or_default()));
            }
        }
        self.log(status, server_error, response_bytes, failure, identity);
        self.context.span().end();
    }

    fn log(
        &self,
        status: u16,
        server_error: bool,
        response_bytes: Option<u64>,
        failure: Option<&'static str>,
        identity: trackline_sdk::request::Identity,
    ) {
        let level = match status {
            _ if server_error => Level::ERROR,
            _ if failure.is_some() => Level::WARN,
            400.. => Level::WARN,
            _ if self.probe => Level::DEBUG,
            _ => Level::INFO,
        };
        if self.quiet && level >= Level::INFO || !self.telemetry.logs_requests(level) {
            return;
        }
        let mut fields: Vec<(Cow<'static, str>, Field)> = Vec::with_capacity(ATTRIBUTES);
        let mut put = |name: &'static str, value: Option<Field>| {
            if let Some(value) = value {
                fields.push((Cow::Borrowed(name), value));
            }
        };
        put("request.method", Some(Field::from(self.method.clone())));
        put("request.path", Some(self.path.clone().into()));
        put("request.size", self.request_bytes.map(Field::from));
        put("request.duration", Some(self.started.elapsed().as_secs_f64().into()));
        put("request.user_agent", self.user_agent.clone().map(Field::from));
        put("request.ip", self.client.clone().map(Field::from));
        put("response.status", Some(status.into()));
        put("response.size", response_bytes.map(Field::from));
        put("response.content_type", self.content_type.clone().map(Field::from));
        put("error.type", failure.map(Field::from));
        put("user.id", identity.user_id.map(Field::from));
        put("user.segment", identity.user_segment.map(Field::from));
        put("session.id", identity.session_id.map(Field::from));
        put("session.duration", identity.session_seconds.map(Field::from));
        let message = format!("{} {} - {status}", self.method, self.path);
        self.telemetry.log_request(&self.context, level, message, fields);
    }
}

/// Where a request's trace comes from: the context it continues, the id it suggests, the span it only links to.
fn caller(
    trust: Trust,
    headers: &HeaderMap,
) -> (
    Context,
    Option<opentelemetry::trace::TraceId>,
    Option<opentelemetry::trace::SpanContext>,
) {
    let root = Context::new();
    let caller = w3c::extract(headers);
    if trust == Trust::None {
        return (root, None, caller.map(|caller| caller.span_context()));
    }
    let context = w3c::extract_baggage(headers, root);
    match caller {
        Some(caller) => (caller.continue_in(&context), None, None),
        None => {
            let mut given = headers.get_all(X_TRACKING_ID).iter();
            let suggested = given
                .next()
                .filter(|_| given.next().is_none())
                .and_then(|value| value.to_str().ok())
                .and_then(trackline_sdk::suggested_trace_id);
            (context, suggested, None)
        }
    }
}

/// The method by its own name if it is one that the conventions know, so that callers cannot invent span names.
fn method_name(method: &Method) -> Cow<'static, str> {
    Cow::Borrowed(match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    })
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn text_of(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(cut(text, MAX_HEADER_TEXT))
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
