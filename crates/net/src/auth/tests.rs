//! What each form of credentials lets in, what changes when its file does, and that no message tells a secret.

use std::fs;
use std::path::Path;

use super::*;
use basic::{ClientAuth, Htpasswd};

fn basic(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value.parse().unwrap());
    headers
}

fn client(username: &str, password: &str) -> Client {
    let config = basic::Config {
        client_auth: Some(ClientAuth {
            username: username.to_owned(),
            password: Secret::new(password),
            ..ClientAuth::default()
        }),
        htpasswd: None,
    };
    Client::Basic(config.client().unwrap())
}

fn sent(client: &Client) -> HeaderMap {
    let mut headers = HeaderMap::new();
    client.prepare(&mut headers, &[]);
    headers
}

fn htpasswd(inline: &str, file: Option<&Path>) -> basic::Config {
    basic::Config {
        htpasswd: Some(Htpasswd {
            file: file.map(Path::to_owned),
            inline: Secret::new(inline),
        }),
        client_auth: None,
    }
}

fn server(inline: &str, file: Option<&Path>) -> basic::Server {
    htpasswd(inline, file).server().unwrap()
}

/// The password is `open sesame` in all of them.
fn people() -> String {
    // The SHA-1 hashes are what `openssl dgst -sha1 -binary | base64` makes of the password, and of it and `salt`.
    let hash = bcrypt::hash("open sesame", 4).unwrap();
    format!(
        "# who sends\nplain:open sesame\n\nbcrypt:{hash}\nsha:{{SHA}}W8r/fyL/UzygmbNAjq2HbA67qac=\nsalted:{{SSHA}}hN5uxFJUEWCPg56kk42tnVCdJ61zYWx0\n"
    )
}

#[tokio::test]
async fn each_form_of_password_is_known() {
    let server = server(&people(), None);
    for user in ["plain", "bcrypt", "sha", "salted"] {
        for (password, expect) in [
            ("open sesame", true),
            ("open sesam", false),
            ("open sesame ", false),
            ("", false),
            ("open sesameopen sesame", false),
        ] {
            // Twice, because a bcrypt password that was right is remembered.
            for _ in 0..2 {
                let headers = sent(&client(user, password));
                assert_eq!(server.admits(&headers).await, expect, "{user} {password:?}");
            }
        }
    }
    assert!(!server.admits(&sent(&client("nobody", "open sesame"))).await);
}

#[tokio::test]
async fn headers_that_are_not_what_they_should_be() {
    let server = server("user:pass", None);
    for (value, expect) in [
        ("Basic dXNlcjpwYXNz", true),
        ("basic   dXNlcjpwYXNz ", true),
        ("Basic dXNlcjpwYXNz=", false),
        ("Basic dXNlcg==", false),
        ("Basic dXNlcg", false),
        ("Basic !!!!", false),
        ("Basic", false),
        ("Bearer dXNlcjpwYXNz", false),
        ("", false),
    ] {
        assert_eq!(server.admits(&basic(value)).await, expect, "{value}");
    }
    let mut twice = basic("Basic dXNlcjpwYXNz");
    twice.append("authorization", "Basic dXNlcjpwYXNz".parse().unwrap());
    assert!(
        !server.admits(&twice).await,
        "two headers leave open which one is meant"
    );
    assert!(!server.admits(&HeaderMap::new()).await);
}

#[tokio::test]
async fn a_file_is_read_again_and_what_is_inline_goes_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("htpasswd");
    fs::write(&path, "a:one\nb:two\n").unwrap();
    let server = server("b:inline", Some(&path));
    assert!(server.admits(&sent(&client("a", "one"))).await);
    assert!(server.admits(&sent(&client("b", "inline"))).await);
    assert!(!server.admits(&sent(&client("b", "two"))).await);
    fs::write(&path, "a:three\n").unwrap();
    assert!(server.admits(&sent(&client("a", "three"))).await);
    assert!(!server.admits(&sent(&client("a", "one"))).await);
    // What cannot be used changes nothing: neither letting everyone in nor locking everyone out.
    fs::write(&path, "no colon\n").unwrap();
    assert!(server.admits(&sent(&client("a", "three"))).await);
    fs::remove_file(&path).unwrap();
    assert!(server.admits(&sent(&client("a", "three"))).await);
    fs::write(&path, "a:four\n").unwrap();
    assert!(server.admits(&sent(&client("a", "four"))).await);
}

#[tokio::test]
async fn a_hash_that_changes_voids_what_was_proven() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("htpasswd");
    let line = |password: &str| format!("a:{}\n", bcrypt::hash(password, 4).unwrap());
    fs::write(&path, line("before")).unwrap();
    let server = server("", Some(&path));
    assert!(server.admits(&sent(&client("a", "before"))).await);
    fs::write(&path, line("after")).unwrap();
    assert!(!server.admits(&sent(&client("a", "before"))).await);
    assert!(server.admits(&sent(&client("a", "after"))).await);
}

#[test]
fn a_password_may_come_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let (user, password) = (directory.path().join("user"), directory.path().join("password"));
    fs::write(&user, "user\n").unwrap();
    fs::write(&password, "pass\n").unwrap();
    let config = basic::Config {
        client_auth: Some(ClientAuth {
            username: "ignored".to_owned(),
            username_file: Some(user.clone()),
            password: Secret::default(),
            password_file: Some(password.clone()),
        }),
        htpasswd: None,
    };
    assert_eq!(config.check(), Ok(()));
    let client = Client::Basic(config.client().unwrap());
    assert_eq!(sent(&client)["authorization"], "Basic dXNlcjpwYXNz");
    fs::write(&user, "us:er").unwrap();
    assert_eq!(sent(&client)["authorization"], "Basic dXNlcjpwYXNz", "not a name");
    fs::write(&user, "new").unwrap();
    assert_eq!(sent(&client)["authorization"], "Basic bmV3OnBhc3M=");
    fs::remove_file(&password).unwrap();
    assert!(
        config
            .client()
            .is_err_and(|error| error.to_string().contains("password"))
    );
}

#[test]
fn tokens_of_a_list_and_of_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "first\nsecond\n").unwrap();
    let listed = bearer::Config {
        token: Secret::new("one"),
        tokens: vec![Secret::new("two")],
        ..bearer::Config::default()
    };
    let filed = bearer::Config {
        filename: Some(path.clone()),
        ..bearer::Config::default()
    };
    let own = bearer::Config {
        header: "X-Key".to_owned(),
        scheme: String::new(),
        token: Secret::new("one"),
        ..bearer::Config::default()
    };
    let bearer_client = |config: &bearer::Config| Client::Bearer(config.client().unwrap());
    assert_eq!(sent(&bearer_client(&listed))["authorization"], "Bearer one");
    assert_eq!(sent(&bearer_client(&own))["x-key"], "one");
    let client = bearer_client(&filed);
    assert_eq!(sent(&client)["authorization"], "Bearer first");
    assert!(sent(&client)["authorization"].is_sensitive());

    let (listed, filed, own) = (listed.server().unwrap(), filed.server().unwrap(), own.server().unwrap());
    for (value, by_list, by_file) in [
        ("Bearer one", true, false),
        ("bearer two", true, false),
        ("Bearer second", false, true),
        ("Bearer", false, false),
        ("Bearer ", false, false),
        ("one", false, false),
        ("Basic one", false, false),
    ] {
        assert_eq!(listed.admits(&basic(value)), by_list, "{value}");
        assert_eq!(filed.admits(&basic(value)), by_file, "{value}");
        assert!(!own.admits(&basic(value)), "{value}");
    }
    let mut headers = HeaderMap::new();
    headers.insert("x-key", "one".parse().unwrap());
    assert!(own.admits(&headers) && own.challenge().is_none());
    assert_eq!(listed.challenge().unwrap(), "Bearer");

    fs::write(&path, "third").unwrap();
    assert_eq!(sent(&client)["authorization"], "Bearer third");
    assert!(filed.admits(&basic("Bearer third")) && !filed.admits(&basic("Bearer first")));
    fs::write(&path, "\n").unwrap();
    assert!(filed.admits(&basic("Bearer third")) && !filed.admits(&basic("Bearer ")));
}

#[test]
fn mistakes_name_their_key_and_no_secret() {
    let with_client = |username: &str, password: &str| basic::Config {
        htpasswd: None,
        client_auth: Some(ClientAuth {
            username: username.to_owned(),
            password: Secret::new(password),
            ..ClientAuth::default()
        }),
    };
    let both = basic::Config {
        htpasswd: htpasswd("a:b", None).htpasswd,
        ..with_client("a", "b")
    };
    let hash = "a:$2y$15$UA1N9nFSD6t6BErsdjjvmucAH7I9NOGNQP7YEYfAVvo7KxNtSP02u";
    for (config, key, why) in [
        (basic::Config::default(), "", "one of them is needed"),
        (both, "client_auth", "exclude each other"),
        (htpasswd("", None), "htpasswd", "nobody could send"),
        (htpasswd("a:b\nhunter2", None), "htpasswd.inline", "line 2: expected"),
        (htpasswd(":hunter2", None), "htpasswd.inline", "line 1: expected"),
        (htpasswd("a:", None), "htpasswd.inline", "there is no password"),
        (htpasswd("a:$apr1$hunter2", None), "htpasswd.inline", "write it anew"),
        (htpasswd("a:$2y$hunter2", None), "htpasswd.inline", "is not whole"),
        (htpasswd(hash, None), "htpasswd.inline", "a cost of more than 14"),
        (htpasswd("a:{SHA}hunter2", None), "htpasswd.inline", "is not whole"),
        (with_client("", "hunter2"), "client_auth.username", "a name is needed"),
        (with_client("a:b", "hunter2"), "client_auth.username", "no colons"),
        (with_client("a", ""), "client_auth.password", "is needed"),
    ] {
        let mistake = config.check().unwrap_err();
        assert_eq!(mistake.key.join("."), key);
        assert!(mistake.why.contains(why), "{mistake:?}");
        assert!(!format!("{mistake:?} {config:?}").contains("hunter2"), "{mistake:?}");
    }
    let token = |token: &str| bearer::Config {
        token: Secret::new(token),
        ..bearer::Config::default()
    };
    let scheme = bearer::Config {
        scheme: "two words".to_owned(),
        ..token("x")
    };
    let named = bearer::Config {
        header: "two words".to_owned(),
        ..token("x")
    };
    for (config, key, why) in [
        (token(""), "", "one of `token`"),
        (token("hunter2\n2"), "token", "characters"),
        (scheme, "scheme", "one word"),
        (named, "header", "not the name of a header"),
    ] {
        let mistake = config.check().unwrap_err();
        assert_eq!(mistake.key.join("."), key);
        assert!(mistake.why.contains(why), "{mistake:?}");
        assert!(!format!("{mistake:?} {config:?}").contains("hunter2"), "{mistake:?}");
    }
}

#[test]
fn nobody_is_let_in_by_a_name_that_was_not_looked_up() {
    let auth = Auth {
        authenticator: "basicauth".to_owned(),
        settings: None,
    };
    assert!(auth.server().is_err() && auth.client().is_err());
    let sender = Settings::Basic(htpasswd("a:b", None));
    assert!(sender.serves(Side::Server).is_ok() && sender.serves(Side::Client).is_err());
}

/// The headers that a request with these goes out with, in order of their names, or what is wrong with the steps.
fn set(steps: &str, before: &[(&'static str, &str)], metadata: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let config: headers_setter::Config = serde_json::from_str(&format!("{{\"headers\": [{steps}]}}")).unwrap();
    config.check().map_err(|mistake| mistake.why)?;
    let client = Client::Headers(config.client().unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in before {
        headers.insert(*name, value.parse().unwrap());
    }
    let metadata: Vec<(Arc<str>, Arc<str>)> = metadata
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    client.prepare(&mut headers, &metadata);
    assert!(!format!("{client:?}{config:?}").contains("hunter2"));
    let mut out: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
        .collect();
    out.sort();
    Ok(out)
}

#[test]
fn headers_are_set_as_each_action_says() {
    let there = [("a", "before")];
    let value = |key: &str, action: &str| format!(r#"{{"key": "{key}", "action": "{action}", "value": "hunter2"}}"#);
    for (action, a, b) in [
        ("insert", "a=before", "b=hunter2"),
        ("update", "a=hunter2", ""),
        ("upsert", "a=hunter2", "b=hunter2"),
    ] {
        let steps = format!("{}, {}", value("A", action), value("B", action));
        let expect: Vec<&str> = [a, b].into_iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(set(&steps, &there, &[]).unwrap(), expect, "{action}");
    }
    assert!(
        set(r#"{"key": "a", "action": "delete"}"#, &there, &[])
            .unwrap()
            .is_empty()
    );
}

#[test]
fn headers_are_passed_on_and_never_made_up() {
    let passed = r#"{"key": "X-Scope-OrgID", "from_context": "X-Tenant"}"#;
    let came = [("x-other", "no"), ("x-tenant", "one"), ("x-tenant", "two")];
    assert_eq!(set(passed, &[], &came[..2]).unwrap(), ["x-scope-orgid=one"]);
    assert_eq!(
        set(passed, &[], &came).unwrap(),
        ["x-scope-orgid=one", "x-scope-orgid=two"]
    );
    assert_eq!(
        set(passed, &[], &[("x-tenant", "")]).unwrap(),
        ["x-scope-orgid="],
        "empty is a value"
    );
    assert!(set(passed, &[], &[]).unwrap().is_empty());
    let default = r#"{"key": "X-Scope-OrgID", "from_context": "x-tenant", "default_value": "nobody"}"#;
    assert_eq!(set(default, &[], &[]).unwrap(), ["x-scope-orgid=nobody"]);
    assert_eq!(set(default, &[], &came[..2]).unwrap(), ["x-scope-orgid=one"]);
    let config: headers_setter::Config = serde_json::from_str(&format!("{{\"headers\": [{passed}]}}")).unwrap();
    assert_eq!(
        Client::Headers(config.client().unwrap()).metadata_keys(),
        ["x-tenant".into()]
    );
}

#[test]
fn steps_that_say_too_little_or_too_much() {
    for (step, expect) in [
        ("", "`headers` is empty"),
        (r#"{"value": "x"}"#, "`key: ` is not the name"),
        (r#"{"key": "a b", "value": "x"}"#, "`key: a b` is not the name"),
        (r#"{"key": "a"}"#, "exactly one of `value` and `from_context`"),
        (r#"{"key": "a", "value": "x", "from_context": "b"}"#, "exactly one of"),
        (r#"{"key": "a", "from_context": ""}"#, "exactly one of"),
        (
            r#"{"key": "a", "value": "x", "default_value": "y"}"#,
            "goes with `from_context`",
        ),
        (
            r#"{"key": "a", "action": "delete", "value": "x"}"#,
            "`delete` takes no value",
        ),
        (
            r#"{"key": "a", "value": "hunter2\n"}"#,
            "characters that no header may have",
        ),
        (r#"{"key": "Content-Length", "value": "7"}"#, "set by the protocol"),
    ] {
        let said = set(step, &[], &[]).unwrap_err();
        assert!(said.contains(expect) && !said.contains("hunter2"), "{step}: {said}");
    }
    let many = vec![r#"{"key": "a", "value": "x"}"#; 65].join(", ");
    assert!(set(&many, &[], &[]).unwrap_err().contains("65 steps are more than 64"));
}
