//! Where credentials come from, against stand-ins for the container's endpoint, the machine's metadata service and STS.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use exporters::aws::credentials::{Chain, Role};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use net::ClientTls;
use net::{Request, Response, full_body};
use pipeline::{Exporter, Outcome, Reason};

use super::stand_in::{StandIn, open_door};
use super::*;

const FOREVER: &str = "2099-01-01T00:00:00Z";

/// What a stand-in was asked: method, path, headers as text, body.
type Asked = Arc<Mutex<Vec<String>>>;

/// Answers by path; anything else is 404.
async fn stand_in(answers: Vec<(&'static str, String)>) -> (net::Open, std::net::SocketAddr, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let answers = Arc::new(answers);
    let (open, address) = open_door("stand-in", move |request: Request| {
        let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let header = |name: &str| {
                head.headers
                    .get(name)
                    .map_or("", |value| value.to_str().unwrap_or_default())
            };
            let needs_token = head.method == Method::GET && head.uri.path().starts_with("/latest/");
            let line = format!(
                "{} {} {}{} {}",
                head.method,
                head.uri.path(),
                header("authorization"),
                header("x-aws-ec2-metadata-token"),
                String::from_utf8_lossy(&body)
            );
            seen.lock().expect("no panic").push(line);
            let found = answers.iter().find(|(path, _)| *path == head.uri.path());
            let mut response = Response::new(full_body(found.map_or(String::new(), |(_, text)| text.clone())));
            if found.is_none() || needs_token && header("x-aws-ec2-metadata-token") != "t0ken" {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            response
        }
    })
    .await;
    (open, address, asked)
}

fn written(id: &str, expiration: &str) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"{SECRET}","Token":"session","Expiration":"{expiration}"}}"#
    )
}

fn chain(variables: &[(&str, &str)]) -> Chain {
    Chain::new(Surroundings::of(variables), None, ClientTls::default())
}

#[tokio::test]
async fn a_container_tells_with_its_token() {
    let (_open, address, asked) = stand_in(vec![("/v2/creds", written("CONTAINER", FOREVER))]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "from-a-file\n").expect("written");
    let full = format!("http://{address}/v2/creds");
    let with = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", full.as_str())];
    let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "given");
    let token_file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().expect("a path"));
    for more in [vec![], vec![token], vec![token, token_file]] {
        let found = chain(&[&with[..], &more].concat())
            .get("us-east-1")
            .await
            .expect("found");
        assert_eq!(
            (found.access_key_id.as_str(), found.source),
            ("CONTAINER", "the container")
        );
        assert_eq!(
            found.session_token.as_ref().map(|token| token.reveal()),
            Some("session")
        );
        assert_eq!(found.expires_at_seconds, Some(4_070_908_800));
    }
    let expect = ["GET /v2/creds  ", "GET /v2/creds given ", "GET /v2/creds from-a-file "];
    assert_eq!(*asked.lock().expect("no panic"), expect);
    let mut near = Surroundings::of(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/creds")]);
    near.container = format!("http://{address}");
    let found = Chain::new(near, None, ClientTls::default()).get("us-east-1").await;
    assert_eq!(found.expect("found").access_key_id, "CONTAINER");
    let far = chain(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/creds"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let said = far.get("us-east-1").await.expect_err("not asked");
    assert!(said.contains("must be https"), "{said}");
}

#[tokio::test]
async fn a_machine_tells_with_a_token_of_version_two() {
    let role = "/latest/meta-data/iam/security-credentials/";
    let (_open, address, asked) = stand_in(vec![
        ("/latest/api/token", "t0ken".to_owned()),
        (role, "collector\n".to_owned()),
        (
            "/latest/meta-data/iam/security-credentials/collector",
            written("MACHINE", FOREVER),
        ),
        ("/latest/meta-data/placement/region", "us-east-1".to_owned()),
    ])
    .await;
    let endpoint = format!("http://{address}/");
    let with = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.as_str());
    let found = chain(&[with]).get("us-east-1").await.expect("found");
    assert_eq!(
        (found.access_key_id.as_str(), found.source),
        ("MACHINE", "the machine's role")
    );
    let expect = [
        "PUT /latest/api/token  ".to_owned(),
        format!("GET {role} t0ken "),
        format!("GET {role}collector t0ken "),
    ];
    assert_eq!(*asked.lock().expect("no panic"), expect);

    // The region comes from there as well, and the session's token is signed.
    let (aws, _door, address) = StandIn::open().await;
    aws.state().keys.insert("MACHINE".to_owned(), SECRET.to_owned());
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', raw_log: true"),
        Surroundings::of(&[with]),
    );
    assert_eq!(exporter.export(logs("api", &[(0, "x")])).await, Outcome::Delivered);
    assert_eq!(aws.state().headers[0]["x-amz-security-token"], "session");
}

const ASSUMED: &str = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>s3cret</SecretAccessKey>\
<SessionToken>session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

#[tokio::test]
async fn a_role_is_assumed_and_a_web_identity_is_shown() {
    let (_open, address, asked) = stand_in(vec![("/", ASSUMED.to_owned())]).await;
    let endpoint = format!("http://{address}");
    let role = Role {
        arn: "arn:aws:iam::1:role/logs".to_owned(),
        external_id: Some("e 1".to_owned()),
    };
    let keys = [
        ("AWS_ACCESS_KEY_ID", ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_ENDPOINT_URL_STS", endpoint.as_str()),
    ];
    let assuming = Chain::new(Surroundings::of(&keys), Some(role), ClientTls::default());
    let found = assuming.get("us-east-1").await.expect("assumed");
    assert_eq!(
        (found.access_key_id.as_str(), found.source),
        ("ASSUMED", "an assumed role")
    );
    let first = asked.lock().expect("no panic").remove(0);
    assert!(
        first.starts_with("POST / AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
        "{first}"
    );
    let form = "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Flogs&RoleSessionName=trackline&ExternalId=e%201";
    assert!(
        first.ends_with(form) && first.contains("/us-east-1/sts/aws4_request"),
        "{first}"
    );

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "j.w.t\n").expect("written");
    let web = chain(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().expect("a path")),
        ("AWS_ROLE_ARN", "arn"),
        ("AWS_ENDPOINT_URL_STS", &endpoint),
    ]);
    assert_eq!(web.get("us-east-1").await.expect("shown").source, "a web identity");
    let expect = "POST /  Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn&RoleSessionName=trackline&WebIdentityToken=j.w.t";
    assert_eq!(*asked.lock().expect("no panic"), [expect]);
}

#[tokio::test]
async fn they_are_asked_for_again_before_they_end_and_serve_to_the_end() {
    let end = "2015-08-30T13:36:00Z";
    let (open, address, asked) = stand_in(vec![("/creds", written("CONTAINER", end))]).await;
    let clock = Arc::new(AtomicU64::new(1_440_938_160));
    let full = format!("http://{address}/creds");
    let hands = Arc::clone(&clock);
    let around = Surroundings::of(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", full.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ])
    .with_clock(move || hands.load(Ordering::Relaxed));
    let chain = Chain::new(around, None, ClientTls::default());
    let count = || asked.lock().expect("no panic").len();
    for (after_seconds, expect) in [(0, 1), (3000, 1), (3299, 1), (3300, 2)] {
        clock.store(1_440_938_160 + after_seconds, Ordering::Relaxed);
        chain.get("us-east-1").await.expect("found");
        assert_eq!(count(), expect, "{after_seconds} s");
    }
    open.shutdown(Duration::ZERO).await;
    clock.store(1_440_938_160 + 3599, Ordering::Relaxed);
    chain.get("us-east-1").await.expect("the old ones");
    clock.store(1_440_938_160 + 3600, Ordering::Relaxed);
    let said = chain.get("us-east-1").await.expect_err("they have ended");
    for words in [
        "environment: AWS_ACCESS_KEY_ID is not set",
        "shared files: ",
        "container: ",
        "EC2: AWS_EC2_METADATA_DISABLED is set",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn without_credentials_everything_waits_until_there_are_some() {
    let (aws, _open, address) = StandIn::open().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("credentials");
    let around = Surroundings::of(&[
        ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().expect("a path")),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1, raw_log: true"),
        around,
    );
    let batch = logs("api", &[(0, "x")]);
    let later = |seconds| Outcome::retry(Duration::from_secs(seconds), Reason::BackendUnavailable);
    assert_eq!(exporter.export(batch.clone()).await, later(0));
    assert_eq!(aws.state().calls.len(), 0);
    let write = |id: &str| {
        let text = format!("[default]\naws_access_key_id={id}\naws_secret_access_key={SECRET}\n");
        std::fs::write(&file, text).expect("written");
    };
    write("STRANGER");
    assert_eq!(exporter.export(batch.clone()).await, later(30), "not known");
    // Changed in place: what AWS refuses is read again within the same attempt.
    write(ID);
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    aws.state().keys.clear();
    aws.state().keys.insert("OTHER".to_owned(), SECRET.to_owned());
    write("OTHER");
    assert_eq!(exporter.export(logs("api", &[(0, "y")])).await, Outcome::Delivered);
    assert_eq!(aws.messages("/ecs/ai-teams-dev", "api"), ["x", "y"]);
}
