//! Settings and their mistakes.

use super::*;
use pipeline::config::Source;

fn read(settings: &str) -> Result<Config, String> {
    let text = format!("receivers:\n  it: {settings}\nservice: {{ pipelines: {{ metrics: {{}} }} }}\n");
    let config = pipeline::config::Config::load(vec![Source::new("test", text)], &|_| None)
        .map_err(|error| error.to_string())?;
    Config::parse(&config.section(&config.receivers[0])).map_err(|error| error.to_string())
}

#[test]
fn the_collectors_settings_are_read() {
    let config = read(
        "{ collection_interval: 30s, initial_delay: 0s, metrics: { httpcheck.status: { enabled: false }, httpcheck.tls.cert_remaining: { enabled: true } }, targets: [ { method: post, \
         endpoints: [ 'https://a/', 'http://b:1/x?y=z' ], endpoint: 'http://[::1]:8/', headers: { a: b }, body: '{}', auto_content_type: true, \
         tls: { insecure_skip_verify: true }, max_idle_conns: 5, compression: none, middlewares: [], cookies: { enabled: true }, \
         validations: [ { contains: ok, max_size: 100 }, { json_path: $$.status, equals: ok } ] } ] }",
    )
    .expect("right");
    assert_eq!(
        (config.collection_interval, config.timeout),
        (Duration::from_secs(30), Duration::ZERO)
    );
    let target = &config.targets[0];
    assert_eq!((&target.method, target.timeout), (&Method::POST, DEFAULT_TIMEOUT));
    assert_eq!(target.urls().count(), 3);
    assert!(!config.metrics.status.enabled && config.metrics.up.enabled);
    assert_eq!(config.metrics.unmeasured(), ["httpcheck.tls.cert_remaining"]);
}

#[test]
fn mistakes_have_their_place() {
    for (settings, expect) in [
        ("{}", "the key `targets` is missing"),
        ("{ targets: [] }", "there is nothing to check"),
        ("{ targets: [ {} ] }", "name an `endpoint`"),
        (
            "{ targets: [ { endpoint: 'localhost:80' } ] }",
            "does not begin with http://",
        ),
        (
            "{ targets: [ { endpoints: [ 'http://a/', 'ftp://x' ] } ] }",
            "`ftp://` is not supported",
        ),
        (
            "{ targets: [ { endpoint: 'http://me:pw@x/' } ] }",
            "must not hold a user",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', methd: GET } ] }",
            "did you mean `method`?",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', method: 'G T' } ] }",
            "is not a method",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', tls: { key_file: k } } ] }",
            "`key_file` needs `cert_file`",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', headers: { 'a b': c } } ] }",
            "is not the name of a header",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', proxy_url: 'http://p' } ] }",
            "through a proxy",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', auth: { authenticator: a } } ] }",
            "under `headers`",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', compression: snappy } ] }",
            "`snappy` is not available",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', middlewares: [ { id: m } ] } ] }",
            "extensions do not change checks",
        ),
        ("{ sequences: [ {} ], targets: [] }", "a target of its own"),
        (
            "{ targets: [ { endpoint: 'http://x/', validations: [ { contains: a }, { equals: b } ] } ] }",
            "`equals` needs `json_path`",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', validations: [ {} ] } ] }",
            "demands nothing",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/', cookies: { enabld: true } } ] }",
            "did you mean `enabled`?",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/' } ], collection_interval: 1ms }",
            "must be at least 100ms",
        ),
        (
            "{ targets: [ { endpoint: 'http://x/' } ], collection_interval: 10 }",
            "the unit is missing",
        ),
    ] {
        let said = read(settings).expect_err(settings);
        assert!(said.contains("test:2") && said.contains(expect), "{settings}: {said}");
    }
}
