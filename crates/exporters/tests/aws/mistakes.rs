//! Configurations as data.

use exporters::awscloudwatchlogs;

use super::*;

#[test]
fn the_collectors_file_loads_unchanged() {
    let settings = "log_group_name: testing-logs, log_stream_name: testing-integrations-stream, region: us-east-1, \
                    role_arn: 'arn:aws:iam::123456789:role/monitoring-application-logs', endpoint: logs.us-east-1.amazonaws.com, log_retention: 365, \
                    tags: { sampleKey: sampleValue }, sending_queue: { queue_size: 50 }, retry_on_failure: { enabled: true, initial_interval: 10ms }, \
                    max_retries: 3, num_workers: 8, request_timeout_seconds: 12, no_verify_ssl: false, proxy_address: '', local_mode: false, \
                    resource_arn: '', external_id: x, raw_log: true";
    let config =
        read("awscloudwatchlogs", settings, awscloudwatchlogs::parse).unwrap_or_else(|error| panic!("{error}"));
    let sending = awscloudwatchlogs::how_sent(&config);
    assert_eq!(
        (sending.timeout, sending.queue_size),
        (Duration::from_secs(12), Some(50))
    );
    let nothing = read("awscloudwatchlogs", "", awscloudwatchlogs::parse).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(awscloudwatchlogs::how_sent(&nothing).timeout, Duration::from_secs(30));
}

#[test]
fn mistakes_say_what_to_write() {
    for (settings, expect) in [
        ("log_group_nam: x", "did you mean `log_group_name`?"),
        ("log_group_name: 'a b'", "log_group_name: AWS does not permit ` ` in it"),
        ("log_group_name: 'a{b'", "has no `}`"),
        ("log_stream_name: ''", "log_stream_name: it is empty"),
        ("log_retention: 8", "cannot keep for 8 days; it can for 0, 1, 3, 5, 7,"),
        ("log_retention: -1", "log_retention"),
        ("region: 'us east'", "`us east` is not a region"),
        ("endpoint: 'https://x/path'", "leave `/path` out"),
        ("endpoint: 'ftp://x'", "`ftp://` is not supported"),
        (
            "no_verify_ssl: true",
            "name the one to trust with `tls: { ca_file: … }`",
        ),
        ("proxy_address: 'http://proxy:3128'", "there are no proxies yet"),
        ("external_id: x", "`external_id` needs `role_arn`"),
        ("compression: zstd", "takes `gzip` or `none`"),
        ("emf_only: true", "`emf_only` needs `raw_log: true`"),
        ("tags: { a: '' }", "a tag has a key of"),
        ("tags: { 'a!': b }", "a tag has a key of"),
    ] {
        let Err(said) = read("awscloudwatchlogs", settings, awscloudwatchlogs::parse) else {
            panic!("{settings} is right")
        };
        assert!(
            said.contains(expect) && said.contains("test.yaml:2"),
            "{settings}: {said}"
        );
    }
}
