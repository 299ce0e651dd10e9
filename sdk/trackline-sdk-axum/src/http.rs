//! A `reqwest` client whose calls are spans (SPEC S7): the trace goes along in the headers, failures and retries show.

use std::fmt;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use reqwest::{Body, IntoUrl, Request, Response};
use trackline_sdk::{SpanKind, record_failure, span, w3c};

use crate::mask;

/// Pause before the first retry; each further one doubles it.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer, whatever the server asks for: someone is waiting.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(2);

/// An HTTP client. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    retries: u32,
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Client {
    /// A client with reqwest's defaults and no retries. For `https` it trusts what the system trusts.
    ///
    /// # Panics
    ///
    /// As `reqwest::Client::new`: if the system's resolver cannot be set up.
    pub fn new() -> Client {
        let builder = reqwest::Client::builder().tls_backend_preconfigured(trackline_sdk::tls::client_config());
        Client::from_reqwest(builder.build().expect("the system's resolver can be set up"))
    }

    /// A client around one that was configured elsewhere, with [`trackline_sdk::tls::client_config`] for example: this
    /// crate's reqwest has no TLS provider of its own choice.
    pub fn from_reqwest(inner: reqwest::Client) -> Client {
        Client { inner, retries: 0 }
    }

    /// Tries again up to `retries` times what may be repeated (GET, HEAD, OPTIONS, PUT, DELETE) and failed in a way that
    /// may pass: no connection, timeout, 429, 502, 503, 504. Each attempt is a span of its own.
    pub fn retries(mut self, retries: u32) -> Client {
        self.retries = retries;
        self
    }

    /// Begins a GET request.
    pub fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Begins a POST request.
    pub fn post(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Begins a PUT request.
    pub fn put(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Begins a PATCH request.
    pub fn patch(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Begins a DELETE request.
    pub fn delete(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Begins a request.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        RequestBuilder {
            inner: self.inner.request(method, url),
            template: None,
            retries: self.retries,
        }
    }

    /// Sends a finished request. See [`RequestBuilder::send`].
    pub async fn execute(&self, request: Request) -> reqwest::Result<Response> {
        send(&self.inner, request, None, self.retries).await
    }
}

/// A request being put together; the methods are reqwest's.
#[must_use = "a request is sent with `send`"]
#[derive(Debug)]
pub struct RequestBuilder {
    inner: reqwest::RequestBuilder,
    template: Option<&'static str>,
    retries: u32,
}

impl RequestBuilder {
    /// The path with its variable parts named (`/sessions/{id}`): the span is then called `GET /sessions/{id}`.
    pub fn template(mut self, template: &'static str) -> Self {
        self.template = Some(template);
        self
    }

    /// Adds a header.
    pub fn header<K, V>(mut self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.inner = self.inner.header(name, value);
        self
    }

    /// Adds headers.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.inner = self.inner.headers(headers);
        self
    }

    /// Adds `Authorization: Bearer …`.
    pub fn bearer_auth(mut self, token: impl fmt::Display) -> Self {
        self.inner = self.inner.bearer_auth(token);
        self
    }

    /// Sends a value as JSON.
    pub fn json<T: serde::Serialize + ?Sized>(mut self, value: &T) -> Self {
        self.inner = self.inner.json(value);
        self
    }

    /// Sends a body.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.inner = self.inner.body(body);
        self
    }

    /// Limits one attempt, until its body has been read.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.inner = self.inner.timeout(timeout);
        self
    }

    /// As [`Client::retries`], for this request.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sends the request with the current trace in its headers. Statuses of 400 and above are not errors of this
    /// function, but they are of the span.
    pub async fn send(self) -> reqwest::Result<Response> {
        let (client, request) = self.inner.build_split();
        send(&client, request?, self.template, self.retries).await
    }
}

async fn send(
    client: &reqwest::Client,
    request: Request,
    template: Option<&'static str>,
    retries: u32,
) -> reqwest::Result<Response> {
    let retries = if repeatable(request.method()) { retries } else { 0 };
    let mut request = request;
    let mut attempt = 0;
    loop {
        // A streamed body cannot be sent twice; such a request has one attempt.
        let next = if attempt < retries { request.try_clone() } else { None };
        let outcome = exchange(client, request, template, attempt).await;
        let Some(again) = next.filter(|_| may_pass(&outcome)) else {
            return outcome;
        };
        let asked = outcome.as_ref().ok().and_then(|r| retry_after(r.headers()));
        tokio::time::sleep(asked.unwrap_or_else(|| pause(attempt)).min(MAX_RETRY_PAUSE)).await;
        request = again;
        attempt += 1;
    }
}

/// One attempt in its span.
async fn exchange(
    client: &reqwest::Client,
    mut request: Request,
    template: Option<&'static str>,
    attempt: u32,
) -> reqwest::Result<Response> {
    let method = request.method().as_str().to_owned();
    let url = request.url();
    let name = match template {
        Some(template) => format!("{method} {template}"),
        None => method.clone(),
    };
    let mut builder = span(name)
        .kind(SpanKind::Client)
        .attr("http.request.method", method)
        .attr("url.full", mask::url(url));
    if let Some(host) = url.host_str() {
        builder = builder.attr("server.address", host.to_owned());
    }
    if let Some(port) = url.port_or_known_default() {
        builder = builder.attr("server.port", i64::from(port));
    }
    if let Some(template) = template {
        builder = builder.attr("url.template", template);
    }
    if attempt > 0 {
        builder = builder.attr("http.request.resend_count", i64::from(attempt));
    }
    let span = builder.start();
    w3c::inject(span.context(), request.headers_mut());
    let outcome = span.run(client.execute(request)).await;
    match &outcome {
        Ok(response) => note_response(span.context(), response),
        Err(error) => record_failure(span.context(), failure(error), &describe(error), None),
    }
    span.end();
    outcome
}

fn note_response(context: &Context, response: &Response) {
    let span = context.span();
    let status = response.status();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if let Some(length) = response.content_length() {
        span.set_attribute(KeyValue::new("http.response.body.size", length as i64));
    }
    if status.is_client_error() || status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
        // The number is the error's type already.
        span.set_status(Status::error(status.canonical_reason().unwrap_or_default()));
    }
}

fn repeatable(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

fn may_pass(outcome: &reqwest::Result<Response>) -> bool {
    match outcome {
        Ok(response) => matches!(
            response.status(),
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        Err(error) => error.is_connect() || error.is_timeout(),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Between half and all of the doubled pause, so that callers who failed together do not return together.
fn pause(attempt: u32) -> Duration {
    let full = RETRY_PAUSE.saturating_mul(1 << attempt.min(10)).min(MAX_RETRY_PAUSE);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn failure(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connection_failed"
    } else if error.is_redirect() {
        "redirect_loop"
    } else if error.is_body() || error.is_decode() {
        "body_failed"
    } else {
        "request_failed"
    }
}

/// The error with its causes, but without the URL, which may hold secrets and is on the span already.
fn describe(error: &reqwest::Error) -> String {
    let mut text = failure(error).replace('_', " ");
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
