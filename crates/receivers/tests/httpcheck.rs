//! Checks of services that answer, redirect, refuse, are silent, or are not there, over real sockets.

#[path = "support/site.rs"]
mod site;

use pipeline::config::{Config, Source};
use pipeline::{Outcome, Reason};
use receivers::httpcheck;
use site::{Reply, Site, Working};
use std::time::Duration;

const BUDGET_BYTES: u64 = 1 << 20;

fn settings(text: &str) -> httpcheck::Config {
    let text = format!("receivers:\n  httpcheck: {text}\nservice: {{ pipelines: {{ metrics: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test", text)], &|_| None).unwrap_or_else(|error| panic!("{error}"));
    httpcheck::Config::parse(&config.section(&config.receivers[0])).unwrap_or_else(|error| panic!("{error}"))
}

fn start(text: &str) -> Working {
    Working::start("httpcheck", settings(text), BUDGET_BYTES)
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

#[tokio::test]
async fn what_services_answer_is_told() {
    let site = Site::start(|seen| match seen.path() {
        "/health" => Reply::Whole(200, "", b"fine".to_vec()),
        "/moved" => Reply::Whole(302, "location: /health\r\n", Vec::new()),
        "/post" if seen.head.starts_with("POST") && seen.body == b"{}" && seen.header("x-a") == Some("b") => {
            assert_eq!(seen.header("content-type"), Some("application/json"));
            Reply::Whole(204, "", Vec::new())
        }
        "/circle" => Reply::Whole(307, "location: /circle\r\n", Vec::new()),
        "/endless" => Reply::Endless("HTTP/1.1 200 OK\r\n\r\n", vec![b'x'; 1 << 16]),
        _ => Reply::Whole(503, "", b"no".to_vec()),
    })
    .await;
    let at = site.address;
    let mut running = start(&format!(
        "{{ initial_delay: 0s, collection_interval: 100ms, targets: [ \
           {{ endpoint: 'http://{at}/health', service_name: gateway }}, \
           {{ endpoints: ['http://{at}/moved', 'http://{at}/circle', 'http://{at}/sick', 'http://{at}/endless'] }}, \
           {{ endpoint: 'http://{at}/post', method: post, body: '{{}}', headers: {{ x-a: b }}, auto_content_type: true }} ] }}"
    ));
    let all = ["health", "moved", "circle", "sick", "endless", "post"];
    let lines = running
        .until("a point of each", |lines| {
            all.iter()
                .all(|path| has(lines, &format!("up{{http.url=http://{at}/{path}}}")))
        })
        .await;
    for (path, up) in [("moved", 1), ("circle", 0), ("sick", 0), ("endless", 1), ("post", 1)] {
        assert!(
            has(
                &lines,
                &format!("| gauge httpcheck.up{{http.url=http://{at}/{path}}} {up}")
            ),
            "{path}: {lines:#?}"
        );
    }
    let of = |path: &str| {
        lines
            .iter()
            .filter(|line| line.contains(path) && line.contains("status{"))
            .take(5)
            .collect::<Vec<_>>()
    };
    let expect = |service: &str, path: &str, method: &str, class: u16, status: u16| -> Vec<String> {
        (1..=5)
            .map(|n| {
                let code = if n == class { format!(",http.status_code={status}") } else { String::new() };
                format!(
                    "{service}| sum httpcheck.status{{http.method={method},http.status_class={n}xx{code},http.url=http://{at}/{path}}} {}",
                    u16::from(n == class)
                )
            })
            .collect()
    };
    assert_eq!(
        of("/health").into_iter().cloned().collect::<Vec<_>>(),
        expect("service.name=gateway", "health", "GET", 2, 200)
    );
    assert_eq!(
        of("/sick").into_iter().cloned().collect::<Vec<_>>(),
        expect("", "sick", "GET", 5, 503)
    );
    assert_eq!(
        of("/post").into_iter().cloned().collect::<Vec<_>>(),
        expect("", "post", "POST", 2, 204)
    );
    assert!(has(&lines, "error.message=more than 10 redirects"), "{lines:#?}");
    assert!(has(
        &lines,
        &format!("gauge httpcheck.duration{{http.url=http://{at}/health}}")
    ));
    running.finish().await;
}

#[tokio::test]
async fn who_is_silent_or_away_is_down_and_comes_back() {
    let site = Site::start(|_| Reply::Silence).await;
    let at = site.address;
    // A port that nobody listens on: it was ours a moment ago.
    let away = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut running = start(&format!(
        "{{ initial_delay: 0s, collection_interval: 100ms, targets: [ {{ endpoint: 'http://{at}/x', timeout: 200ms }}, \
           {{ endpoint: 'http://{away}/' }} ] }}"
    ));
    let lines = running
        .until("both down", |lines| {
            has(lines, &format!("up{{http.url=http://{at}/x}} 0"))
                && has(lines, &format!("up{{http.url=http://{away}/}} 0"))
        })
        .await;
    assert!(
        has(
            &lines,
            &format!("sum httpcheck.error{{error.message=no answer in 200ms,http.url=http://{at}/x}} 1")
        ),
        "{lines:#?}"
    );
    assert!(
        has(
            &lines,
            &format!("error.message=cannot connect to {away}: Connection refused")
        ),
        "{lines:#?}"
    );
    site.answers(|_| Reply::Whole(200, "", Vec::new()));
    running
        .until("up again", |lines| {
            has(lines, &format!("up{{http.url=http://{at}/x}} 1"))
        })
        .await;
    running.finish().await;
}

#[tokio::test]
async fn what_the_pipeline_refuses_is_counted_and_gone() {
    let site = Site::start(|_| Reply::Whole(200, "", Vec::new())).await;
    let at = site.address;
    let running = start(&format!(
        "{{ initial_delay: 0s, collection_interval: 100ms, metrics: {{ httpcheck.status: {{ enabled: false }} }}, \
           targets: [ {{ endpoint: 'http://{at}/' }} ] }}"
    ));
    let mut running = running;
    running.until("a first point", |lines| !lines.is_empty()).await;
    *running.outcome.lock().unwrap() = Outcome::retry(Duration::from_secs(1), Reason::JournalFull);
    let start = std::time::Instant::now();
    while running.turned_away("journal_full") < 4 {
        assert!(start.elapsed() < site::PATIENCE, "nothing was refused");
        tokio::task::yield_now().await;
    }
    *running.outcome.lock().unwrap() = Outcome::Delivered;
    let before = running.batches.borrow().len();
    running.until("points again", |lines| lines.len() > before * 2).await;
    running.finish().await;
}

#[tokio::test]
async fn without_memory_a_check_is_dropped_and_counted() {
    let site = Site::start(|_| Reply::Whole(200, "", Vec::new())).await;
    let text = format!(
        "{{ initial_delay: 0s, collection_interval: 100ms, targets: [ {{ endpoint: 'http://{}/' }} ] }}",
        site.address
    );
    let running = Working::start("httpcheck", settings(&text), 16);
    let start = std::time::Instant::now();
    while running.turned_away("memory_limit") == 0 {
        assert!(start.elapsed() < site::PATIENCE, "nothing was refused");
        tokio::task::yield_now().await;
    }
    running.finish().await;
}

/// A body for which there was no memory was told as a service that is down.
#[tokio::test]
async fn our_own_want_of_memory_is_no_outage_of_theirs() {
    let site = Site::start(|_| Reply::Whole(200, "", vec![b'x'; 600 << 10])).await;
    let at = site.address;
    let text = format!(
        "{{ initial_delay: 0s, collection_interval: 100ms, targets: [ {{ endpoint: 'http://{at}/', validations: [ {{ contains: x }} ] }} ] }}"
    );
    let mut running = Working::start("httpcheck", settings(&text), 400 << 10);
    let up = format!("gauge httpcheck.up{{http.url=http://{at}/}}");
    let lines = running.until("a point", |lines| has(lines, &up)).await;
    assert!(has(&lines, &format!("{up} 1")), "{lines:#?}");
    running.finish().await;
}

/// After a redirect a request without a body still said how that is compressed.
#[tokio::test]
async fn nothing_is_said_of_a_body_that_is_gone() {
    let site = Site::start(|seen| match seen.path() {
        "/form" => Reply::Whole(303, "location: /done\r\n", Vec::new()),
        _ if seen.header("content-encoding").is_none() && seen.header("content-type").is_none() => {
            Reply::Whole(204, "", Vec::new())
        }
        _ => Reply::Whole(400, "", Vec::new()),
    })
    .await;
    let at = site.address;
    let mut running = start(&format!(
        "{{ initial_delay: 0s, collection_interval: 100ms, targets: [ {{ endpoint: 'http://{at}/form', method: POST, body: '{{}}', auto_content_type: true, compression: gzip }} ] }}"
    ));
    let up = format!("gauge httpcheck.up{{http.url=http://{at}/form}}");
    let lines = running.until("a point", |lines| has(lines, &up)).await;
    assert!(has(&lines, &format!("{up} 1")), "{lines:#?}");
    running.finish().await;
}

#[tokio::test]
async fn bodies_are_validated_cookies_come_back_and_a_body_is_compressed() {
    let site = Site::start(|seen| match seen.path() {
        "/status" => Reply::Whole(200, "", br#"{"status":"ok","checks":[{"up":true}]}"#.to_vec()),
        "/login" if seen.header("cookie") == Some("a=b") => {
            Reply::Whole(200, "set-cookie: session=7; Path=/\r\n", Vec::new())
        }
        "/login" if seen.header("cookie").is_some_and(|sent| sent.contains("session=7")) => {
            Reply::Whole(204, "", Vec::new())
        }
        "/jump" => Reply::Whole(302, "set-cookie: way=here; Path=/\r\nlocation: /landed\r\n", Vec::new()),
        "/landed" if seen.header("cookie") == Some("way=here") => Reply::Whole(204, "", Vec::new()),
        "/packed" if seen.header("content-encoding") == Some("gzip") => {
            let mut body = vec![0; 3];
            let length = libdeflater::Decompressor::new().gzip_decompress(&seen.body, &mut body);
            let is_it = length == Ok(3) && body == b"abc";
            Reply::Whole(if is_it { 204 } else { 400 }, "", Vec::new())
        }
        "/endless" => Reply::Endless("HTTP/1.1 200 OK\r\n\r\n", vec![b'x'; 1 << 16]),
        _ => Reply::Whole(403, "", Vec::new()),
    })
    .await;
    let at = site.address;
    let mut running = Working::start(
        "httpcheck",
        settings(&format!(
            "{{ initial_delay: 0s, collection_interval: 100ms, metrics: {{ httpcheck.response.size: {{ enabled: true }} }}, targets: [ \
               {{ endpoint: 'http://{at}/status', validations: [ {{ json_path: '$$.status', equals: ok }}, {{ json_path: '$$.checks[0].up', equals: 'false' }}, {{ contains: status, max_size: 100 }} ] }}, \
               {{ endpoint: 'http://{at}/login', cookies: {{ enabled: true }}, headers: {{ cookie: a=b }} }}, \
               {{ endpoint: 'http://{at}/jump', cookies: {{ enabled: true }} }}, \
               {{ endpoint: 'http://{at}/packed', method: POST, body: abc, compression: gzip }}, \
               {{ endpoint: 'http://{at}/endless', validations: [ {{ contains: y }} ] }} ] }}"
        )),
        4 << 20,
    );
    let is_up = |path: &str, up: u8| format!("gauge httpcheck.up{{http.url=http://{at}/{path}}} {up}");
    let lines = running
        .until("a point of each", |lines| {
            has(lines, "http.status_code=204,http.url=http://127.0.0.1")
                && has(lines, &is_up("packed", 1))
                && has(lines, &is_up("jump", 1))
                && has(lines, &is_up("endless", 0))
                && has(lines, &is_up("status", 0))
                && lines
                    .iter()
                    .any(|line| line.contains("/login") && line.contains("status_code=204"))
        })
        .await;
    for expect in [
        format!("sum httpcheck.validation.passed{{http.url=http://{at}/status,validation.type=json_path}} 1"),
        format!("sum httpcheck.validation.failed{{http.url=http://{at}/status,validation.type=json_path}} 1"),
        format!("sum httpcheck.validation.passed{{http.url=http://{at}/status,validation.type=contains}} 1"),
        format!("sum httpcheck.validation.failed{{http.url=http://{at}/status,validation.type=size}} 0"),
        format!(
            "sum httpcheck.status{{http.method=GET,http.status_class=2xx,http.status_code=200,http.url=http://{at}/status}} 1"
        ),
        format!("gauge httpcheck.response.size{{http.url=http://{at}/status}} 38"),
    ] {
        assert!(has(&lines, &expect), "{expect} in {lines:#?}");
    }
    assert!(
        lines
            .iter()
            .any(|line| line.contains("httpcheck.error") && line.contains("/endless")),
        "{lines:#?}"
    );
    running.finish().await;
}
