//! The web pages: files built into the binary, and one page for every address that the script in it draws.

use std::sync::OnceLock;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::ApiError;

/// `(path, content)` of every file in `ui/dist`, sorted; made by `build.rs`.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/ui_files.rs"));

/// Shown by a binary that was built without the pages.
const NO_PAGES: &str = "<!doctype html><title>Trackline</title><p>This binary was built without its web pages. \
    The terminal has everything: <code>trackline trace ID</code>.";

/// The page may run only what comes from here, and be framed only by pages from here. Styles that a script sets are
/// how the waterfall is laid out.
const CONTENT_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    object-src 'none'; base-uri 'none'; frame-ancestors 'self'";

/// Files smaller than this are not worth compressing: they fit one packet anyway.
const MIN_GZIP_BYTES: usize = 1_024;
/// The best that deflate does; each file is compressed once.
const GZIP_LEVEL: i32 = 9;

/// Serves a file, the page, or 404 for addresses that only programs ask for.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    if path.starts_with("/api/") || path == "/api" || path.starts_with("/jaeger/api/") {
        return ApiError::new(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {path}"),
            "docs/api.md lists the paths; Jaeger's are /api/traces and its neighbours",
        )
        .into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    let name = path.trim_start_matches('/');
    match find(name) {
        Some(index) => file(index, &headers),
        // What looks like a file is one that is not there; everything else is drawn by the page.
        None if name.rsplit('/').next().is_some_and(|last| last.contains('.')) => {
            (StatusCode::NOT_FOUND, "there is no such file\n").into_response()
        }
        None => match find("index.html") {
            Some(index) => file(index, &headers),
            None => page(Bytes::from_static(NO_PAGES.as_bytes())),
        },
    }
}

fn find(name: &str) -> Option<usize> {
    FILES.binary_search_by_key(&name, |(path, _)| path).ok()
}

fn page(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    response
}

fn file(index: usize, request: &HeaderMap) -> Response {
    let (name, content) = FILES[index];
    let gzip = compressed(index).filter(|_| accepts_gzip(request));
    let mut response = page(gzip.map_or(Bytes::from_static(content), Bytes::from_static));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_POLICY),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if gzip.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // Names under assets/ hold a hash of the content; the others must be asked for again after an update.
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get_all(header::ACCEPT_ENCODING);
    let mut codings = accepted
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"))
            && parts.all(|part| !matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// The file in gzip, made at the first request for it; `None` where that gains nothing.
fn compressed(index: usize) -> Option<&'static [u8]> {
    static CACHE: OnceLock<Vec<OnceLock<Option<Vec<u8>>>>> = OnceLock::new();
    let cache = CACHE.get_or_init(|| FILES.iter().map(|_| OnceLock::new()).collect());
    let made = cache[index].get_or_init(|| {
        let content = FILES[index].1;
        if content.len() < MIN_GZIP_BYTES {
            return None;
        }
        let level = libdeflater::CompressionLvl::new(GZIP_LEVEL).ok()?;
        let mut compressor = libdeflater::Compressor::new(level);
        let mut out = vec![0; compressor.gzip_compress_bound(content.len())];
        let size = compressor.gzip_compress(content, &mut out).ok()?;
        out.truncate(size);
        (size < content.len()).then_some(out)
    });
    made.as_deref()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "json" | "map" | "webmanifest" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_read_with_their_weights() {
        for (value, accepted) in [
            ("gzip, br", true),
            ("br;q=1, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("deflate", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(accepts_gzip(&headers), accepted, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn files_are_sorted_so_that_they_are_found() {
        assert!(FILES.is_sorted_by_key(|(name, _)| name));
    }
}
