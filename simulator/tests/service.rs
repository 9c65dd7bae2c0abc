//! The service's rules and its surroundings, by raw HTTP: what no SDK asks for by itself.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use marketplace_simulator::config::{Config, Key, Product};
use marketplace_simulator::fault::Kind;
use marketplace_simulator::world::World;
use marketplace_simulator::{Simulator, token};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start() -> Simulator {
    let key = Key {
        version: 1,
        bits: 1024,
        private_key_file: None,
        rotated_at: None,
    };
    let products = vec![Product {
        keys: vec![key],
        ..Product::new("prod-demo")
    }];
    let config = Config {
        listen: "127.0.0.1:0".to_owned(),
        products,
        ..Config::default()
    };
    Simulator::start(&config).await.unwrap()
}

/// HTTP status and body.
async fn ask(
    simulator: &Simulator,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(simulator.address()).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn an_unsigned_call_is_refused_and_logged() {
    let simulator = start().await;
    let target = "x-amz-target: AWSMPMeteringService.RegisterUsage\r\n";
    let (status, body) = ask(&simulator, "POST", "/", target, "{}").await;
    assert_eq!(status, 400);
    assert!(
        body.contains("#MissingAuthenticationTokenException"),
        "{body}"
    );
    let world = simulator.world();
    let call = world.calls().next().unwrap();
    assert_eq!(
        (call.operation.as_str(), call.identity.as_deref()),
        ("RegisterUsage", None)
    );
}

#[tokio::test]
async fn imds_wants_a_token() {
    let simulator = start().await;
    let region = "/latest/meta-data/placement/region";
    assert_eq!(ask(&simulator, "GET", region, "", "").await.0, 401);
    let (_, token) = ask(&simulator, "PUT", "/latest/api/token", "", "").await;
    let header = format!("x-aws-ec2-metadata-token: {token}\r\n");
    assert_eq!(
        ask(&simulator, "GET", region, &header, "").await,
        (200, "us-east-1".to_owned())
    );
    assert_eq!(
        ask(&simulator, "GET", "/latest/meta-data/other", &header, "")
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn ecs_tasks_have_metadata_and_credentials() {
    let simulator = start().await;
    assert_eq!(
        ask(&simulator, "GET", "/ecs/v4/t1/task", "", "").await.0,
        404
    );
    assert_eq!(
        ask(&simulator, "PUT", "/simulator/tasks", "", r#"{"id":"t1"}"#)
            .await
            .0,
        200
    );
    let (_, metadata) = ask(&simulator, "GET", "/ecs/v4/t1/task", "", "").await;
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(
        metadata["TaskARN"],
        "arn:aws:ecs:us-east-1:111122223333:task/simulator/t1"
    );
    let (_, credentials) = ask(&simulator, "GET", "/ecs/credentials/t1", "", "").await;
    let credentials: Value = serde_json::from_str(&credentials).unwrap();
    for member in ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"] {
        assert!(credentials[member].is_string(), "{member}");
    }
}

#[tokio::test]
async fn sts_gives_credentials_to_known_tokens_for_their_role_alone() {
    let simulator = start().await;
    let pod = r#"{"identity":"p1","token":"a+b/c","role_arn":"arn:aws:iam::1:role/r"}"#;
    assert_eq!(
        ask(&simulator, "PUT", "/simulator/pods", "", pod).await.0,
        200
    );
    let assume = |token: &str, role: &str| {
        format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={role}&WebIdentityToken={token}"
        )
    };
    let role = "arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr";
    let (status, body) = ask(&simulator, "POST", "/", "", &assume("a%2Bb%2Fc", role)).await;
    assert_eq!(status, 200);
    assert!(body.contains("<SessionToken>"), "{body}");
    for (token, role, code) in [
        ("other", role, "InvalidIdentityToken"),
        ("a%2Bb%2Fc", "arn%3Aother", "AccessDenied"),
    ] {
        let (status, body) = ask(&simulator, "POST", "/", "", &assume(token, role)).await;
        assert_eq!(status, 400);
        assert!(body.contains(code), "{body}");
    }
    let (_, body) = ask(&simulator, "POST", "/", "", "Action=GetCallerIdentity").await;
    assert!(body.contains("InvalidAction"), "{body}");
}

#[tokio::test]
async fn the_administration_refuses_what_it_does_not_know() {
    let simulator = start().await;
    for (method, path, body) in [
        ("POST", "/simulator/faults", r#"{"kind":"no-such-fault"}"#),
        ("POST", "/simulator/faults", r#"{"kind":"throttle"}"#),
        ("POST", "/simulator/faults", r#"{"kind":"error"}"#),
        (
            "POST",
            "/simulator/faults",
            r#"{"kind":"garbage","unknown":1}"#,
        ),
        (
            "PUT",
            "/simulator/products",
            r#"{"code":"x","entitlement":true}"#,
        ),
        (
            "PUT",
            "/simulator/products",
            r#"{"code":"x","key":[{"version":1,"bits":512}]}"#,
        ),
        (
            "POST",
            "/simulator/faults",
            r#"{"kind":"garbage","record":0}"#,
        ),
        (
            "POST",
            "/simulator/faults",
            r#"{"kind":"unprocessed","operation":"MeterUsage"}"#,
        ),
        ("PUT", "/simulator/clock", "{}"),
        ("PUT", "/simulator/task-metadata", r#""sideways""#),
    ] {
        let (status, answer) = ask(&simulator, method, path, "", body).await;
        assert_eq!(status, 400, "{path} {body}");
        assert!(serde_json::from_str::<Value>(&answer).unwrap()["error"].is_string());
    }
    assert_eq!(
        ask(&simulator, "GET", "/simulator/nothing", "", "").await.0,
        404
    );
    assert_eq!(
        ask(&simulator, "DELETE", "/simulator/account", "", "")
            .await
            .0,
        404
    );
}

const BUYER: &str = r#"{"id":"buyer","product_code":"prod-demo","customer_identifier":"c","customer_aws_account_id":"1",
    "license":[{"arn":"arn:aws:license-manager::1:license:l-1","agreement_id":"agmt-1"}]}"#;

#[tokio::test]
async fn customers_and_tokens_are_set_while_it_runs_and_shown() {
    let simulator = start().await;
    let token = r#"{"token":"t","customer":"buyer","expires_at":"2026-11-24T10:00:00Z","further_members":{"New":1}}"#;
    for (path, body) in [
        ("/simulator/customers", BUYER),
        ("/simulator/tokens", token),
    ] {
        assert_eq!(
            ask(&simulator, "PUT", path, "", body).await.0,
            200,
            "{path}"
        );
        let sent: Value = serde_json::from_str(body).unwrap();
        let (_, shown) = ask(&simulator, "GET", path, "", "").await;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        for (name, value) in sent.as_object().unwrap() {
            if name != "license" {
                assert_eq!(shown[0][name], *value, "{name}");
            }
        }
        // Putting the same again replaces it.
        assert_eq!(
            ask(&simulator, "PUT", path, "", body).await.0,
            200,
            "{path}"
        );
        assert_eq!(shown.as_array().unwrap().len(), 1);
    }
    let without = r#"{"id":"buyer","product_code":"prod-demo","customer_aws_account_id":"1"}"#;
    ask(&simulator, "PUT", "/simulator/customers", "", without).await;
    // What the customer had before is free for another.
    let other = BUYER.replace("buyer", "other");
    assert_eq!(
        ask(&simulator, "PUT", "/simulator/customers", "", &other)
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn customers_and_tokens_that_can_not_be_are_refused_with_the_reason() {
    let simulator = start().await;
    ask(&simulator, "PUT", "/simulator/customers", "", BUYER).await;
    let license = |arn: &str| format!(r#""license":[{{"arn":"{arn}"}}]"#);
    let customer = |members: &str| format!(r#"{{"id":"x","product_code":"prod-demo",{members}}}"#);
    let token = |members: &str| format!(r#"{{"token":"t",{members}}}"#);
    let (customers, tokens) = ("/simulator/customers", "/simulator/tokens");
    let good_license = license("arn:aws:license-manager::2:license:l-2");
    for (path, body, reason) in [
        (
            customers,
            BUYER.replace("prod-demo", "prod-x"),
            "there is no product",
        ),
        (
            customers,
            customer(r#""subscribed":true"#),
            "needs a customer_identifier",
        ),
        (customers, customer(r#""subscribd":true"#), "unknown field"),
        (
            customers,
            customer(r#""customer_identifier":"c""#),
            "belongs to customer \"buyer\"",
        ),
        (
            customers,
            customer(&format!(
                r#""customer_aws_account_id":"1",{}"#,
                license("arn:aws:license-manager::1:license:l-1")
            )),
            "belongs to customer \"buyer\"",
        ),
        (
            customers,
            customer(&format!(r#""customer_identifier":"d",{good_license}"#)),
            "need its customer_aws_account_id",
        ),
        (
            customers,
            customer(&format!(
                r#""customer_aws_account_id":"1",{}"#,
                license("l-1")
            )),
            "no LicenseArn",
        ),
        (
            customers,
            BUYER.replace(
                "}]}",
                r#"},{"arn":"arn:aws:license-manager::1:license:l-1"}]}"#,
            ),
            "stands twice",
        ),
        (customers, BUYER.replace("agmt-1", "a b"), "AgreementId"),
        (
            customers,
            customer(r#""customer_aws_account_id":"1x""#),
            "CustomerAWSAccountId",
        ),
        (
            tokens,
            token(r#""customer":"nobody""#),
            "no customer with the id",
        ),
        (
            tokens,
            r#"{"token":"","customer":"buyer"}"#.to_owned(),
            "empty",
        ),
        (
            tokens,
            token(r#""customer":"buyer","license_arn":"arn:aws:license-manager::1:license:l-9""#),
            "has no license",
        ),
        (
            tokens,
            token(r#""customer":"buyer","further_members":{"LicenseArn":"x"}"#),
            "member of the service model",
        ),
        (
            tokens,
            token(r#""customer":"buyer","further_members":{"Metadata":{"AgreementId":"x"}}"#),
            "member of the service model",
        ),
        (
            tokens,
            token(r#""customer":"buyer","further_members":{"Metadata":1}"#),
            "has to be an object",
        ),
    ] {
        let (status, answer) = ask(&simulator, "PUT", path, "", &body).await;
        assert_eq!(status, 400, "{body}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(reason), "{body}: {error}");
    }
}

#[tokio::test]
async fn keys_are_handed_out_as_pem() {
    let simulator = start().await;
    let (status, pem) = ask(&simulator, "GET", "/simulator/keys/prod-demo/1", "", "").await;
    assert_eq!(status, 200);
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"));
    assert_eq!(
        ask(&simulator, "GET", "/simulator/keys/prod-demo/9", "", "")
            .await
            .0,
        404
    );
}

#[test]
fn the_documented_set_up_is_understood_and_a_misspelled_one_is_not() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/simulator.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let config = Config::parse(&text).unwrap();
    assert_eq!(config.products.len(), 2);
    assert_eq!(
        (config.callers.len(), config.tasks.len(), config.pods.len()),
        (1, 1, 1)
    );
    assert_eq!((config.customers.len(), config.tokens.len()), (2, 1));
    let world = World::new(&config).unwrap();
    assert!(world.customer("acme").is_some());
    assert!(Config::parse(&text.replace("agreement_id", "agrement_id")).is_err());
    let elsewhere = text.replacen(
        "[[customer]]\nid = \"acme\"\nproduct_code = \"prod-demo\"",
        "[[customer]]\nid = \"acme\"\nproduct_code = \"prod-x\"",
        1,
    );
    assert_ne!(elsewhere, text);
    let error = World::new(&Config::parse(&elsewhere).unwrap()).unwrap_err();
    assert!(error.to_string().contains("prod-x"), "{error}");
    assert!(Config::parse(&text.replace("entitled", "entiteld")).is_err());
}

#[test]
fn the_readme_names_every_fault_and_what_strikes_records() {
    let readme = include_str!("../README.md");
    for kind in [
        Kind::Error,
        Kind::InternalError,
        Kind::InternalErrorAfter,
        Kind::UnavailablePage,
        Kind::HtmlPage,
        Kind::Garbage,
        Kind::Truncated,
        Kind::ConnectionReset,
        Kind::ReplyLost,
        Kind::Delay,
        Kind::Attack,
        Kind::Unprocessed,
        Kind::CustomerNotSubscribed,
        Kind::DuplicateRecord,
    ] {
        let name = json!(kind);
        assert!(
            readme.contains(&format!("`{}`", name.as_str().unwrap())),
            "{name}"
        );
    }
}

#[test]
fn the_readme_names_every_attack() {
    let readme = include_str!("../README.md");
    for attack in [
        token::Attack::Missing,
        token::Attack::AlgNone,
        token::Attack::Hs256,
        token::Attack::Rs256,
        token::Attack::OtherKey,
        token::Attack::Truncated,
        token::Attack::TrailingData,
        token::Attack::DuplicateClaims,
        token::Attack::ConflictingSpellings,
        token::Attack::OtherNonce,
        token::Attack::OtherProduct,
        token::Attack::OtherVersion,
        token::Attack::NoSalt,
        token::Attack::ShortSalt,
        token::Attack::LongSalt,
        token::Attack::Huge,
    ] {
        let name = json!(attack);
        assert!(
            readme.contains(&format!("`{}`", name.as_str().unwrap())),
            "{name}"
        );
    }
}
