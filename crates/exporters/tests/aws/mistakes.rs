//! Configurations as data.

use exporters::{awscloudwatchlogs, awsemf};

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
        (
            "proxy_address: 'http://proxy:3128'",
            "this exporter goes through no proxy yet",
        ),
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

#[test]
fn the_collectors_metrics_file_loads_unchanged() {
    let settings = "region: us-west-2, resource_to_telemetry_conversion: { enabled: true }, version: 1, namespace: '', log_group_name: '/aws/{ClusterName}', \
                    log_stream_name: '{TaskId}', dimension_rollup_option: NoDimensionRollup, output_destination: cloudwatch, detailed_metrics: false, \
                    parse_json_encoded_attr_values: [Sources, kubernetes], retain_initial_value_of_delta_metric: true, disable_metric_extraction: false, \
                    eks_fargate_container_insights_enabled: false, metric_descriptors: [{ metric_name: x, unit: Count, overwrite: true }, { metric_name: y, unit: nope }], \
                    metric_declarations: [{ dimensions: [[a, b], []], metric_name_selectors: ['^x'], label_matchers: [{ label_names: [a, b], regex: '^1;2$' }] }, \
                    { dimensions: [[a]] }], max_retries: 1, request_timeout_seconds: 30, num_workers: 8";
    let config = read("awsemf", settings, awsemf::parse).unwrap_or_else(|error| panic!("{error}"));
    let sending = awsemf::how_sent(&config);
    assert_eq!((sending.timeout, sending.in_flight), (Duration::from_secs(30), 1));
    read("awsemf", "", awsemf::parse).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn mistakes_about_metrics_say_what_to_write() {
    for (settings, expect) in [
        ("namespce: x", "did you mean `namespace`?"),
        ("version: 2", "`2` is neither `0` nor `1`"),
        ("dimension_rollup_option: Zero", "ZeroAndSingleDimensionRollup"),
        ("output_destination: file", "file"),
        ("eks_fargate_container_insights_enabled: true", "set it to `false`"),
        (
            "metric_declarations: [{ metric_name_selectors: ['('] }]",
            "`(` is not a pattern",
        ),
        (
            "metric_declarations: [{ dimensions: [[a]] }]",
            "none of them has `metric_name_selectors`",
        ),
        (
            "metric_declarations: [{ metric_name_selectors: [a], label_matchers: [{ label_names: [], regex: a }] }]",
            "needs `label_names` and `regex`",
        ),
        ("log_group_name: '{'", "log_group_name: the `{` at character 1"),
        ("log_retention: 2", "cannot keep for 2 days"),
    ] {
        let Err(said) = read("awsemf", settings, awsemf::parse) else {
            panic!("{settings} is right")
        };
        assert!(
            said.contains(expect) && said.contains("test.yaml:2"),
            "{settings}: {said}"
        );
    }
}
