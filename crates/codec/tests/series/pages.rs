//! Pages in text: what is read, what is refused, and that nothing changes on the way to OTLP and back.

use std::fmt::Write;

use codec::prometheus::exposition::read;
use codec::prometheus::text::Format;

use super::*;

const OPEN: &str = r#"# HELP request_duration_seconds How "long"\nit \\ took
# TYPE request_duration_seconds histogram
# UNIT request_duration_seconds seconds
request_duration_seconds_bucket{method="GET",le="0.5"} 1.0 # {trace_id="0af7651916cd43dd8448eb211c80319c",user="u 1"} 0.25 1700000000.001
request_duration_seconds_bucket{method="GET",le="1.0"} 2
request_duration_seconds_bucket{method="GET",le="+Inf"} 3 # {} 7
request_duration_seconds_sum{method="GET"} 7.75
request_duration_seconds_count{method="GET"} 3
request_duration_seconds_created{method="GET"} 1699999999.5
# TYPE request_count counter
request_count_total{path="/a\"b\\c\nd"} 17 1700000000.007 # {span_id="00f067aa0ba902b7"} 1
request_count_created{path="/a\"b\\c\nd"} 1600000000
# TYPE build info
build_info{version="1"} 1
# TYPE mode stateset
mode{mode="on"} 1
mode{mode="off"} 0
# TYPE depth gaugehistogram
depth_bucket{le="1.0"} 2
depth_bucket{le="+Inf"} 3
depth_gcount 3
depth_gsum 9
# TYPE latency summary
latency{quantile="0.5"} NaN
latency{quantile="0.99"} 2.5
latency_sum 12
latency_count 4
# TYPE "http.server.active" gauge
{"http.server.active","http.route"="/x",a="b"} -3.5
nothing_said 1e-7
# EOF
"#;

#[test]
fn a_page_of_open_metrics() {
    let list = read(OPEN.as_bytes(), Format::OpenMetrics).expect("a page");
    let lines = said(&list);
    for expect in [
        r#"Histogram __name__="request_duration_seconds_bucket" le="0.5" method="GET" = 1.0 at 1700000000123 from 1699999999500"#,
        r#"Histogram __name__="request_duration_seconds_bucket" le="0.5" method="GET" # trace_id="0af7651916cd43dd8448eb211c80319c" user="u 1" = 0.25 at 1700000000001"#,
        r#"Counter __name__="request_count_total" path="/a\"b\\c\nd" = 17.0 at 1700000000007 from 1600000000000"#,
        r#"Gauge __name__="http.server.active" a="b" http.route="/x" = -3.5 at 1700000000123 from 0"#,
        r#"Unknown __name__="nothing_said" = 1e-7 at 1700000000123 from 0"#,
    ] {
        assert!(lines.iter().any(|line| line == expect), "{expect} is not in {lines:#?}");
    }
    let built = same(&list);
    assert_eq!((built.samples, built.exemplars), (19, 3));
    // The histogram and the summary are a point each.
    assert_eq!(built.points, 19 - 4 - 3);
    let histogram = list.iter().find(|series| series.label("le") == "0.5").expect("there");
    assert_eq!(
        (histogram.help(), histogram.unit()),
        ("How \"long\"\nit \\ took", "seconds")
    );
}

#[test]
fn a_page_of_text() {
    let page = "# a remark\n\n# HELP a_total Help\\\\\\n\"x\"\n#TYPE a_total counter\n a_total { x = \"1\" , } 3 1700000000001\n\
        a_created 17\n# TYPE up untyped\nup\t+Inf\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n";
    let list = read(page.as_bytes(), Format::Text).expect("a page");
    let first = list.iter().next().expect("one");
    assert_eq!((first.kind(), first.help()), (Kind::Counter, "Help\\\n\"x\""));
    let payload = build(&list, &options()).payload;
    let mut expect = said(&list);
    // The one thing that changes: bounds have one spelling.
    for line in &mut expect {
        *line = line.replace("le=\"1\"", "le=\"1.0\"");
    }
    assert_eq!(told(&payload), expect);
}

#[test]
fn histograms_that_are_none_stay_series() {
    let mut page = String::new();
    for (name, series) in [
        ("no_count", "_bucket{le=\"+Inf\"} 1|_sum 1"),
        ("no_sum", "_bucket{le=\"+Inf\"} 1|_count 1"),
        ("no_infinity", "_bucket{le=\"1.0\"} 1|_sum 1|_count 1"),
        (
            "shrinks",
            "_bucket{le=\"1.0\"} 2|_bucket{le=\"+Inf\"} 1|_sum 1|_count 1",
        ),
        ("half", "_bucket{le=\"+Inf\"} 1.5|_sum 1|_count 1.5"),
        ("differs", "_bucket{le=\"+Inf\"} 2|_sum 1|_count 1"),
        ("negative", "_bucket{le=\"+Inf\"} -1|_sum 1|_count -1"),
        ("no_bound", "_bucket{le=\"x\"} 1|_bucket{le=\"+Inf\"} 1|_sum 1|_count 1"),
        ("no_le", "_bucket 1|_bucket{le=\"+Inf\"} 1|_sum 1|_count 1"),
        ("twice", "_bucket{le=\"+Inf\"} 1|_sum 1|_sum 2 7|_count 1"),
        ("times", "_bucket{le=\"+Inf\"} 1 5|_sum 1 6|_count 1 7"),
        (
            "labels",
            "_bucket{le=\"+Inf\",a=\"1\"} 1|_sum{a=\"2\"} 1|_count{a=\"1\"} 1",
        ),
        ("plain", " 5"),
    ] {
        writeln!(page, "# TYPE {name} histogram").expect("writes");
        for line in series.split('|') {
            writeln!(page, "{name}{line}").expect("writes");
        }
    }
    let list = read(page.as_bytes(), Format::Text).expect("a page");
    let built = same(&list);
    // In three of them the rest makes a histogram of one bucket.
    assert_eq!(built.points, built.samples - 3 * 2);
}

#[test]
fn what_is_no_page() {
    let check = |format: Format, page: &str, expect: &str| {
        let bad = read(page.as_bytes(), format).expect_err(page);
        assert_eq!(bad.to_string(), expect, "{page}");
    };
    for (page, expect) in [
        ("a 1", "line 1: the last line does not end, so the page may be cut off"),
        ("a 1\nb\n", "line 2: `` is no number"),
        ("a x\n", "line 1: `x` is no number"),
        ("a 1 x\n", "line 1: `x` is no time"),
        ("a 1 1 1\n", "line 1: `1` is more than a value and a time"),
        ("1a 1\n", "line 1: `1a` is no name of a metric"),
        ("a{b=\"1\",b=\"2\"} 1\n", "line 1: a label is there twice"),
        (
            "a{b=1} 1\n",
            "line 1: a label's value in quotes is expected before `1} 1`",
        ),
        ("a{b=\"1} 1\n", "line 1: the text in quotes does not end: `\"1} 1`"),
        (
            "a{b=\"1\" c=\"2\"} 1\n",
            "line 1: `,` or `}` is expected before `c=\"2\"} 1`",
        ),
        (
            "a{1=\"1\"} 1\n",
            "line 1: a label's name is expected before `=\"1\"} 1`",
        ),
        ("a{\"b\"} 1\n", "line 1: a label is there twice"),
        ("{a=\"b\"} 1\n", "line 1: a series has no name"),
        ("a{\"\"=\"b\"} 1\n", "line 1: a label has no name"),
        ("a{__name__=\"b\"} 1\n", "line 1: `__name__` stands before the braces"),
        ("# TYPE a gouge\n", "line 1: `gouge` is no type"),
        ("a 1 # {} 1\n", "line 1: `# {} 1` is more than a value and a time"),
    ] {
        check(Format::Text, page, expect);
    }
    for (page, expect) in [
        ("a 1\n", "line 1: the page ends without `# EOF`"),
        ("# EOF\na 1\n", "line 2: there is more behind `# EOF`"),
        ("\n# EOF\n", "line 1: the line is empty"),
        ("a 1 # 1\n# EOF\n", "line 1: an exemplar begins with labels in braces"),
        ("a 1 1e300\n# EOF\n", "line 1: `1e300` is no time"),
    ] {
        check(Format::OpenMetrics, page, expect);
    }
    let bad = read(b"a 1\nb \xff\n", Format::Text).expect_err("bytes");
    assert_eq!(bad.to_string(), "line 2: the text is not UTF-8");
    let long = format!("a 1 # {{a=\"{}\"}} 1\n# EOF\n", "x".repeat(128));
    check(
        Format::OpenMetrics,
        &long,
        "line 1: the labels of an exemplar have more than 128 characters",
    );
}

#[test]
fn a_scrape_is_relabelled_and_added_to() {
    let page = "# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2\ngone 3\ntarget_info{region=\"eu\"} 1\n";
    let scrape = |page: &str| {
        let mut list = read(page.as_bytes(), Format::Text).expect("a page");
        list.relabel(|labels| {
            if labels.get("x") == "2" {
                return false;
            }
            let x = labels.get("x").to_owned();
            labels.set("y", &x);
            labels.remove("x");
            labels.set("job", "shop/cart/0");
            labels.set("instance", "h:80");
            true
        })
        .expect("labels");
        list.push(
            [("__name__", "up"), ("job", "shop/cart/0"), ("instance", "h:80")],
            Kind::Gauge,
            1.0,
        )
        .expect("labels");
        list
    };
    let first = scrape(page);
    same(&first);
    let mut before = first.clone();
    before.forget_samples();
    let mut second = scrape("# TYPE a counter\na{x=\"1\"} 5\n");
    assert_eq!(second.end_missing(&before), Ok(2));
    let lines = said(&second);
    let ended: Vec<&String> = lines.iter().filter(|line| line.contains("stale")).collect();
    let identity = r#"instance="h:80" job="shop/cart/0""#;
    assert_eq!(
        ended,
        [
            &format!("Unknown __name__=\"gone\" {identity} = stale at {NOW_MS} from 0"),
            &format!("Unknown __name__=\"target_info\" {identity} region=\"eu\" = stale at {NOW_MS} from 0"),
        ]
    );
    same(&second);
    // What has ended once does not end again.
    assert_eq!(scrape("").end_missing(&second), Ok(1));
    assert_eq!(
        SeriesList::new()
            .relabel(|_| true)
            .and_then(|()| first.clone().relabel(|labels| {
                labels.remove("__name__");
                true
            })),
        Err(codec::prometheus::series::BadLabels::NoName)
    );
}
