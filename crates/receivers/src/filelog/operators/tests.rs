//! What operators do to lines, and what their mistakes are told.

use super::*;
use pipeline::config::Source;
use serde::Deserialize;

fn operators(yaml: &str) -> Result<Operators, String> {
    let text = format!("receivers:\n  x: {{ operators: {yaml} }}\n");
    let config = pipeline::config::Config::load(vec![Source::new("test", text)], &|_| None).unwrap();
    #[derive(Deserialize)]
    struct Settings {
        operators: Vec<Operator>,
    }
    let settings: Settings = config
        .section(&config.receivers[0])
        .parse()
        .map_err(|problems| problems.to_string())?;
    Operators::compile(&settings.operators).map_err(|(at, key, problem)| format!("{at} {key}: {problem}"))
}

fn applied<'a>(yaml: &str, line: &'a str, path: &str) -> Record<'a> {
    let mut record = Record::plain(line);
    assert!(operators(yaml).unwrap().apply(&mut record, Some(Path::new(path))));
    record
}

/// What becomes of lines that each begin at ten times their number: `start body`, and `start -` for what was dropped. Behind `…` is what passes when nothing
/// more is waited for.
fn entered(yaml: &str, lines: &[&str]) -> Vec<String> {
    let operators = operators(yaml).unwrap();
    let path = Some(Path::new("/var/log/app.log"));
    let mut held = Held::default();
    let mut out = Vec::new();
    let take = |held: &mut Held, out: &mut Vec<String>| {
        while let Some(passed) = held.pop() {
            let body = passed.record.as_ref().and_then(|record| record.body.as_text());
            out.push(format!("{} {}", passed.start, body.unwrap_or("-")));
        }
    };
    for (at, line) in lines.iter().enumerate() {
        operators.enter(&mut held, entry(at as u64 * 10, line), path);
        take(&mut held, &mut out);
    }
    out.push("…".to_owned());
    while let Some(start) = held.start() {
        operators.give_up(&mut held, path);
        take(&mut held, &mut out);
        assert_ne!(held.start(), Some(start), "it goes on");
    }
    out
}

fn entry(start: u64, line: &str) -> Entry<'_> {
    Entry {
        start,
        mended: 0,
        record: Some(Record::plain(line)),
    }
}

fn shown(members: &Members<'_>) -> String {
    let pairs = members.iter().map(|(key, value)| match value {
        Json::Text(text) => format!("{key}={text}"),
        other => format!("{key}={other:?}"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}

#[test]
fn json_with_time_and_severity() {
    let record = applied(
        "[{type: json_parser, timestamp: {parse_from: attributes.at, layout: '%Y-%m-%d %H:%M:%S'}, severity: {parse_from: attributes.lvl, mapping: {error2: [bad, 500]}}}, \
         {type: move, from: attributes.msg, to: body}, {type: remove, field: attributes.at}, {type: add, field: 'resource[\"service.name\"]', value: shop}, \
         {type: copy, from: attributes.o.k, to: attributes.k}, {type: trace_parser, trace_id: {parse_from: attributes.t}}]",
        r#"{"at":"2023-11-14 22:13:20","lvl":"BAD","msg":"it \"broke\"","o":{"k":7},"t":"0af7651916cd43dd8448eb211c80319c"}"#,
        "",
    );
    assert_eq!(record.time_unix_nano, 1_700_000_000_000_000_000);
    assert_eq!((record.severity_number, record.severity_text.as_ref()), (18, "BAD"));
    assert_eq!(record.body.as_text(), Some("it \"broke\""));
    assert_eq!(shown(&record.resource), "service.name=shop");
    assert!(record.trace_id.is_some());
    assert!(
        shown(&record.attributes).ends_with("k=Int(7)"),
        "{}",
        shown(&record.attributes)
    );
}

#[test]
fn a_pattern_with_groups() {
    let yaml = "[{type: regex_parser, regex: '^(?P<at>\\d+) (?P<level>\\w+) (?P<msg>.*)$', timestamp: {parse_from: attributes.at, layout_type: epoch, layout: s}, severity: {parse_from: attributes.level}}]";
    let record = applied(yaml, "1700000000 WARN disk is full", "");
    assert_eq!(
        (record.time_unix_nano, record.severity_number),
        (1_700_000_000_000_000_000, 13)
    );
    assert_eq!(shown(&record.attributes), "at=1700000000 level=WARN msg=disk is full");
    let record = applied(yaml, "something else", "");
    assert_eq!(
        record,
        Record::plain("something else"),
        "what does not match goes on as it is"
    );
}

#[test]
fn lines_of_containers() {
    let path = "/var/log/pods/shop_cart-7d_0af7-65/cart/3.log";
    let expect = "k8s.namespace.name=shop k8s.pod.name=cart-7d k8s.pod.uid=0af7-65 k8s.container.name=cart k8s.container.restart_count=3";
    let record = applied(
        "[{type: container}]",
        "2023-11-14T22:13:20.5Z stderr F it broke here",
        path,
    );
    assert_eq!(
        (record.time_unix_nano, record.body.as_text()),
        (1_700_000_000_500_000_000, Some("it broke here"))
    );
    assert_eq!(shown(&record.attributes), "log.iostream=stderr logtag=F");
    assert_eq!(shown(&record.resource), expect);
    let line = r#"{"log":"it broke\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}"#;
    let record = applied("[{type: container, add_metadata_from_filepath: false}]", line, path);
    assert_eq!(
        (record.time_unix_nano, record.body.as_text()),
        (1_700_000_000_000_000_000, Some("it broke"))
    );
    assert_eq!(
        (shown(&record.attributes), shown(&record.resource)),
        ("log.iostream=stdout".into(), String::new())
    );
    for line in ["{\"no\": \"log\"}", "no time stdout F x", "", "2023-11-14T22:13:20Z"] {
        assert_eq!(applied("[{type: container}]", line, "/x.log"), Record::plain(line));
    }
}

#[test]
fn severities_by_range_and_condition() {
    let yaml = "[{type: severity_parser, if: 'body startsWith \"s\"', parse_from: attributes.code, mapping: {error: 5xx, warn: [{min: 400, max: 499}, odd], debug: 200}}]";
    for (line, code, expect) in [
        ("s", "503", 17),
        ("s", "404", 13),
        ("s", "ODD", 13),
        ("s", "200", 5),
        ("s", "info", 9),
        ("s", "600", 0),
        ("t", "503", 0),
    ] {
        let mut record = Record::plain(line);
        record.attributes = vec![("code".into(), Json::Text(code.into()))];
        operators(yaml).unwrap().apply(&mut record, None);
        assert_eq!(record.severity_number, expect, "{line} {code}");
    }
}

#[test]
fn lines_become_one_entry() {
    let trace = "[{type: recombine, combine_field: body, is_first_entry: 'body matches \"^[^ ]\"'}]";
    assert_eq!(
        entered(trace, &[" a", "b", "  c", "  d", "e", "f", " g"]),
        ["0  a", "10 b\n  c\n  d", "40 e", "…", "50 f\n g"]
    );
    let last = "[{type: recombine, combine_field: body, combine_with: '', is_last_entry: 'body endsWith \".\"', max_batch_size: 3}]";
    assert_eq!(
        entered(last, &["a", "b.", "c.", "d", "e", "f", "g", "h"]),
        ["0 ab.", "20 c.", "30 def", "…", "60 gh"]
    );
    let bytes = "[{type: recombine, combine_field: body, is_last_entry: 'false', max_log_size: 5B}]";
    assert_eq!(entered(bytes, &["abc", "def", "g"]), ["0 abc\ndef", "…", "20 g"]);
    for (unmatched, expect) in [
        (0, &["0 x\ny\nz", "30 a\nx", "…", "50 a"][..]),
        (1, &["0 x", "10 y", "20 z", "30 a\nx", "…", "50 a"]),
        (2, &["0 x\ny", "20 z", "30 a\nx", "…", "50 a"]),
    ] {
        let yaml = format!(
            "[{{type: recombine, combine_field: body, is_first_entry: 'body == \"a\"', max_unmatched_batch_size: {unmatched}}}]"
        );
        assert_eq!(entered(&yaml, &["x", "y", "z", "a", "x", "a"]), expect);
    }
}

#[test]
fn what_stands_behind_an_unfinished_entry_waits_for_it() {
    let yaml = "[{type: json_parser}, {type: filter, expr: 'attributes.drop == true'}, {type: move, from: attributes.text, to: body}, \
         {type: recombine, combine_field: body, is_last_entry: 'body endsWith \".\"', source_identifier: attributes.from, max_sources: 2, if: 'attributes.alone == nil'}, \
         {type: add, field: attributes.last, value: x}]";
    let line = |from: &str, text: &str| format!(r#"{{"from":"{from}","text":"{text}"}}"#);
    let lines = [
        line("a", "1"),
        line("b", "2."),
        r#"{"drop":true}"#.to_owned(),
        line("b", "3"),
        r#"{"alone":1,"text":"4"}"#.to_owned(),
        line("a", "5."),
        line("b", "6"),
        r#"{"text":{"not":"a text"}}"#.to_owned(),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(
        entered(yaml, &lines),
        ["0 1\n5.", "10 2.", "20 -", "…", "30 3\n6", "40 4", "70 -"]
    );
    // A third source at once finishes all.
    assert_eq!(
        entered(
            yaml,
            &[&line("a", "1"), &line("b", "2"), &line("c", "3"), &line("c", "4.")]
        ),
        ["0 1", "10 2", "20 3\n4.", "…"]
    );
}

#[test]
fn an_unfinished_entry_holds_so_many_behind_it_and_no_more() {
    let yaml = "[{type: recombine, combine_field: body, is_last_entry: 'body == \"end\"', if: 'body != \"alone\"'}]";
    let lines = [&["open"][..], &["alone"; 9_000]].concat();
    let passed = entered(yaml, &lines);
    assert_eq!((passed.len(), passed[0].as_str()), (9_002, "0 open"));
    assert!(
        passed.iter().position(|line| line == "…") > Some(8_000),
        "it was not waited for to the end"
    );
    let long = "x".repeat(1 << 20);
    let yaml = "[{type: recombine, combine_field: body, is_last_entry: 'body == \"end\"', if: 'body == \"open\"'}]";
    let passed = entered(yaml, &["open", &long, &long, &long, &long, &long, "more"]);
    assert_eq!(passed[0], "0 open");
    assert_eq!(passed.last().unwrap(), "…");
}

/// Only the texts of bodies were counted, and what was parsed out of them took many times as much.
#[test]
fn attributes_of_held_entries_were_not_counted() {
    let yaml = "[{type: json_parser}, {type: add, field: body, value: x}, \
         {type: recombine, combine_field: body, is_last_entry: 'false', source_identifier: attributes.from}]";
    let long = "x".repeat(1 << 20);
    let lines: Vec<String> = (0..8)
        .map(|from| format!(r#"{{"from":"{from}","long":"{long}"}}"#))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let passed = entered(yaml, &lines);
    assert_eq!(passed.iter().position(|line| line == "…"), Some(4), "{passed:?}");
}

/// It was finished at 4 MiB, whatever `max_log_size` said.
#[test]
fn a_larger_entry_than_is_held_by_default_was_cut() {
    let yaml = "[{type: recombine, combine_field: body, is_last_entry: 'body == \"end\"', max_log_size: 16MiB}]";
    let long = "x".repeat(1 << 20);
    let lines = [&[long.as_str(); 12][..], &["end"]].concat();
    let passed = entered(yaml, &lines);
    assert_eq!(passed.len(), 2, "{}", passed.len());
    assert_eq!(passed[0].len(), "0 ".len() + 12 * (long.len() + 1) + "end".len());
}

/// The condition was asked again of what the operator had made of the line, of which it was not true any more.
#[test]
fn parts_of_dockers_lines_were_not_joined_under_a_condition() {
    let yaml = "[{type: container, if: 'body startsWith \"{\"'}]";
    let docker = |text: &str| format!(r#"{{"log":"{text}","stream":"stdout","time":"2023-11-14T22:13:20Z"}}"#);
    let (first, second) = (docker("a long "), docker("line\\n"));
    assert_eq!(
        entered(yaml, &[&first, "of another kind", &second]),
        ["0 a long line", "10 of another kind", "…"]
    );
}

/// They were nothing, so that a filter on a field that is missing dropped every line, and a copy of them was never made.
#[test]
fn all_attributes_were_nothing() {
    let kept = |yaml: &str| {
        operators(yaml)
            .unwrap()
            .apply(&mut Record::plain(r#"{"level":"INFO"}"#), None)
    };
    let yaml = "[{type: json_parser}, {type: filter, expr: \"not ('level' in attributes)\"}]";
    assert!(kept(yaml));
    assert!(!kept(&yaml.replace("level", "none")));
    let record = applied(
        "[{type: json_parser}, {type: copy, from: attributes, to: body}, {type: copy, from: attributes, to: resource}]",
        r#"{"level":"INFO"}"#,
        "",
    );
    assert_eq!(record.body, Json::Object(record.attributes.clone()));
    assert_eq!(
        (shown(&record.attributes), shown(&record.resource)),
        ("level=INFO".into(), "level=INFO".into())
    );
}

/// A text cannot be all attributes, and was lost on its way there.
#[test]
fn a_body_that_was_moved_to_all_attributes_was_lost() {
    let yaml = "[{type: move, from: body, to: attributes}]";
    assert_eq!(applied(yaml, "text", "").body.as_text(), Some("text"));
    let yaml = "[{type: json_parser, parse_to: body}, {type: move, from: body, to: attributes}]";
    assert_eq!(shown(&applied(yaml, r#"{"a":"b"}"#, "").attributes), "a=b");
}

#[test]
fn many_members_go_to_their_places() {
    let members: Vec<String> = (0..4_000).map(|at| format!(r#""k{}":"{at}""#, at % 1_000)).collect();
    let line = format!(r#"{{"log":"x\n","stream":"stdout",{}}}"#, members.join(","));
    for (yaml, first) in [
        ("[{type: container}]", "log.iostream=stdout"),
        ("[{type: json_parser}]", "log=x\n stream=stdout"),
    ] {
        let record = applied(yaml, &line, "");
        let shown = shown(&record.attributes);
        let expect = format!(
            "{first} {}",
            (0..1_000)
                .map(|at| format!("k{at}={}", at + 3_000))
                .collect::<Vec<_>>()
                .join(" ")
        );
        assert_eq!(shown, expect, "{yaml}");
    }
}

#[test]
fn parts_of_lines_of_containers_are_put_together() {
    let cri = |stream: &str, tag: &str, text: &str| format!("2023-11-14T22:13:20Z {stream} {tag} {text}");
    let lines = [
        cri("stdout", "P", "a long "),
        cri("stderr", "F", "between"),
        cri("stdout", "P:x", "long "),
        cri("stdout", "F", "line"),
        "of nobody".to_owned(),
        cri("stdout", "P", "unfinished"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(
        entered("[{type: container}]", &lines),
        ["0 a long long line", "10 between", "40 of nobody", "…", "50 unfinished"]
    );
    let docker = |text: &str| format!(r#"{{"log":"{text}","stream":"stdout","time":"2023-11-14T22:13:20Z"}}"#);
    let (first, second) = (docker("a long "), docker("line\\n"));
    assert_eq!(
        entered("[{type: container}]", &[&first, &second, &second]),
        ["0 a long line", "20 line", "…"]
    );
    // Stack traces of a program in a container, of which one line was split.
    let lines = [
        cri("stdout", "F", "Oops"),
        cri("stdout", "P", "  at "),
        cri("stdout", "F", "line 1"),
        cri("stdout", "F", "next"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let yaml = "[{type: container}, {type: recombine, combine_field: body, is_first_entry: 'body matches \"^[^ ]\"'}]";
    assert_eq!(entered(yaml, &lines), ["0 Oops\n  at line 1", "…", "30 next"]);
}

#[test]
fn the_other_fields_are_the_last_lines_or_the_firsts() {
    for (of, expect) in [("newest", 2), ("oldest", 1)] {
        let yaml = format!(
            "[{{type: json_parser}}, {{type: recombine, combine_field: attributes.t, is_last_entry: 'attributes.n == 2', overwrite_with: {of}}}]"
        );
        let operators = operators(&yaml).unwrap();
        let mut held = Held::default();
        operators.enter(&mut held, entry(0, r#"{"t":"a","n":1}"#), None);
        operators.enter(&mut held, entry(9, r#"{"t":"b","n":2}"#), None);
        let record = held.pop().unwrap().record.unwrap();
        assert_eq!(shown(&record.attributes), format!("t=a\nb n=Int({expect})"));
    }
}

#[test]
fn a_filter_drops_what_it_holds_of_or_a_share() {
    let kept = |yaml: &str, line: &str| operators(yaml).unwrap().apply(&mut Record::plain(line), None);
    let yaml = "[{type: filter, expr: 'body contains \"debug\"'}]";
    assert!(!kept(yaml, "a debug line") && kept(yaml, "a line"));
    let some = "[{type: filter, expr: 'true', drop_ratio: 0.5}]";
    let count = (0..1_000).filter(|_| kept(some, "x")).count();
    assert!((300..700).contains(&count), "{count}");
    assert!(kept("[{type: filter, expr: 'true', drop_ratio: 0}]", "x"));
}

#[test]
fn mistakes_say_what_to_write() {
    for (yaml, expect) in [
        (
            "[{type: recombine, combine_field: body}]",
            "needs one of `is_first_entry`",
        ),
        (
            "[{type: recombine, combine_field: body, is_first_entry: 'true', is_last_entry: 'true'}]",
            "needs one of `is_first_entry`",
        ),
        ("[{type: recombine, is_first_entry: 'true'}]", "needs `combine_field`"),
        (
            "[{type: recombine, combine_field: body, is_first_entry: 'bdy'}]",
            "0 is_first_entry: `bdy` is not known",
        ),
        (
            "[{type: recombine, combine_field: body, is_last_entry: 'true', overwrite_with: last}]",
            "neither `newest` nor `oldest`",
        ),
        (
            "[{type: recombine, combine_field: body, max_log_size: 1GiB}]",
            "at most 64MiB",
        ),
        ("[{type: filter}]", "needs `expr`"),
        ("[{type: filter, expr: 'true', drop_ratio: 2}]", "not a share"),
        ("[{type: router}]", "`transform` processor has ParseJSON"),
        (
            "[{type: json_parser, if: 'body like 1'}]",
            "0 if: `like` is not expected",
        ),
        ("[{type: json_parser, output: x}]", "leave `output` out"),
        ("[{type: json_parser, on_error: drop}]", "no line is lost here"),
        ("[{type: json_parser, parse_from: bdy}]", "does not begin with `body`"),
        ("[{type: regex_parser, regex: 'x'}]", "no named group"),
        ("[{type: regex_parser}]", "needs `regex`"),
        (
            "[{type: time_parser, parse_from: attributes.t, layout: '%Q'}]",
            "a directive that is not known",
        ),
        (
            "[{type: time_parser, parse_from: attributes.t, layout: '%Y', location: Middle/Earth}]",
            "location: ",
        ),
        (
            "[{type: severity_parser, parse_from: attributes.l, mapping: {error: {min: 5, max: 4}}}]",
            "no value is between",
        ),
        (
            "[{type: severity_parser, parse_from: attributes.l, mapping: {warn9: x}}]",
            "`warn9` is not a level",
        ),
        (
            "[{type: severity_parser, parse_from: attributes.l, preset: aws}]",
            "neither `default` nor `none`",
        ),
        (
            "[{type: severity_parser, parse_from: attributes.l, mapping: {loud: x}}]",
            "`loud` is not a level",
        ),
        ("[{type: move, from: body}]", "needs `to`"),
        (
            "[{type: json_parser, parse_from: attributes}]",
            "name one, such as attributes.key",
        ),
        (
            "[{type: add, field: resource, value: x}]",
            "name one, such as resource.key",
        ),
        (
            "[{type: recombine, combine_field: attributes, is_last_entry: 'true'}]",
            "0 combine_field: `attributes` is all of them",
        ),
        ("[{type: add, field: attributes.x, value: 'EXPR(1)'}]", "has `set`"),
        ("[{type: json_parser, timestmp: {}}]", "did you mean `timestamp`?"),
    ] {
        let said = operators(yaml).err().unwrap_or_default();
        assert!(said.contains(expect), "{yaml}: {said}");
    }
}
