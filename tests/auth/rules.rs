//! The rules of docs/client-authentication.md, one by one.

use super::*;

fn exception(call: &Call) -> &'static str {
    judge(call).map_or_else(|error| error.name(), |()| "none")
}

fn signed(call: Call) -> Call {
    Signer::at(NOON).sign(call)
}

fn root() -> Call {
    Call::new("POST", "/", "{}")
}

#[test]
fn nothing_signed_is_a_missing_token() {
    assert_eq!(exception(&root()), "MissingAuthenticationTokenException");
    for query in [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00",
        "a=1&x-amz-signature=00",
    ] {
        let presigned = Call::new("POST", &format!("/?{query}"), "{}");
        assert_eq!(judge(&presigned), Err(AuthError::Presigned));
        assert_eq!(
            judge(&signed(presigned)),
            Err(AuthError::Presigned),
            "signed in both places"
        );
    }
}

#[test]
fn an_authorization_that_cannot_be_read_is_incomplete() {
    let good = signed(root());
    let text = good.header("authorization").to_owned();
    let (algorithm, rest) = text.split_once(' ').unwrap();
    let parts: Vec<&str> = rest.split(", ").collect();
    let [credential, headers, signature] = parts[..] else {
        panic!("{text}");
    };
    for bad in [
        String::new(),
        "Bearer token".to_owned(),
        format!("AWS4-ECDSA-P256-SHA256 {rest}"),
        format!("{algorithm}  {rest}"),
        format!("{algorithm} {credential}, {headers}"),
        format!("{algorithm} {credential}, {signature}"),
        format!("{algorithm} {headers}, {signature}"),
        format!("{text}, {signature}"),
        format!("{text},"),
        format!("{text}, Extra=1"),
        text.replace("SignedHeaders", "signedheaders"),
        text.replace("/us-east-1/", "//"),
        text.replace("/us-east-1/", "/"),
        text.replace("/us-east-1/", "/a/us-east-1/"),
        text.replace("/us-east-1/", &format!("/{}/", "r".repeat(65))),
        text.replace("host;", ""),
        text.replace("host;", "host;host;"),
        text.replace("host;x-amz-date", "x-amz-date;host"),
        text.replace("host;", "Host;"),
        text.replace("host;", "host;not-there;"),
        text.replace(&signature[10..], &signature[10..].to_uppercase()),
        text.replace(&signature[10..], &signature[11..]),
    ] {
        let call = good.clone().replace("authorization", &bad);
        assert_eq!(exception(&call), "IncompleteSignatureException", "{bad}");
    }
}

#[test]
fn the_three_parts_may_come_in_any_order_and_without_spaces() {
    let good = signed(root());
    let text = good.header("authorization").to_owned();
    let (algorithm, rest) = text.split_once(' ').unwrap();
    let mut parts: Vec<&str> = rest.split(", ").collect();
    parts.reverse();
    let other = format!("{algorithm} {}", parts.join(","));
    assert_eq!(judge(&good.replace("authorization", &other)), Ok(()));
}

#[test]
fn other_keys_are_unrecognized() {
    let mut signer = Signer::at(NOON);
    signer.access_key_id = "AKIDNOBODY".to_owned();
    let error = judge(&signer.sign(root())).unwrap_err();
    assert_eq!(error, AuthError::UnknownKey("AKIDNOBODY".to_owned()));
    assert_eq!(error.name(), "UnrecognizedClientException");
    let call = signed(root().with("x-amz-security-token", "token"));
    assert_eq!(judge(&call), Err(AuthError::SessionToken));
}

#[test]
fn a_wrong_secret_is_a_mismatch_even_with_the_secret_of_another_key() {
    for secret in ["another-secret-of-some-length", "", SECRET] {
        let mut signer = Signer::at(NOON);
        signer.secret = secret.to_owned();
        let expected = if secret == SECRET {
            Ok(())
        } else {
            Err(AuthError::Mismatch)
        };
        assert_eq!(judge(&signer.sign(root())), expected);
    }
}

#[test]
fn the_scope_names_this_service_and_the_day_of_the_signature() {
    let change = |change: fn(&mut Signer)| {
        let mut signer = Signer::at(NOON);
        change(&mut signer);
        judge(&signer.sign(root()))
    };
    for other in [
        change(|signer| signer.service = "s3".to_owned()),
        change(|signer| signer.date = "20261124".to_owned()),
    ] {
        assert!(matches!(other, Err(AuthError::Scope(_))), "{other:?}");
    }
    for region in ["eu-central-1", "us-gov-west-1", "local", "X"] {
        let mut signer = Signer::at(NOON);
        signer.region = region.to_owned();
        assert_eq!(judge(&signer.sign(root())), Ok(()), "{region}");
    }
    let good = signed(root());
    let text = good
        .header("authorization")
        .replace("aws4_request", "aws5_request");
    let judged = judge(&good.replace("authorization", &text));
    assert!(matches!(judged, Err(AuthError::Scope(_))), "{judged:?}");
}

#[test]
fn five_minutes_of_skew_are_the_most() {
    for (date_time, message) in [
        ("20261125T123100Z", None),
        ("20261125T124100Z", None),
        (
            "20261125T123059Z",
            Some(
                "Signature expired: 20261125T123059Z is now earlier than 20261125T123100Z (20261125T123600Z - 5 min.)",
            ),
        ),
        (
            "20261125T124101Z",
            Some(
                "Signature not yet current: 20261125T124101Z is still later than 20261125T124100Z (20261125T123600Z + 5 min.)",
            ),
        ),
    ] {
        let judged = judge(&Signer::at(date_time).sign(root()));
        match message {
            None => assert_eq!(judged, Ok(()), "{date_time}"),
            Some(message) => {
                let error = judged.unwrap_err();
                assert_eq!(error.name(), "InvalidSignatureException");
                assert_eq!(error.to_string(), message);
            }
        }
    }
}

#[test]
fn skew_counts_across_midnight() {
    let keys = known_keys();
    for (signed_at, now) in [
        ("20261125T235800Z", "2026-11-26T00:02:00Z"),
        ("20261126T000200Z", "2026-11-25T23:58:00Z"),
    ] {
        let call = Signer::at(signed_at).sign(root());
        let judged = verify(
            &call.parts().unwrap(),
            &call.body,
            &keys,
            now.parse().unwrap(),
        );
        assert!(judged.is_ok(), "{judged:?}");
    }
}

#[test]
fn the_date_is_x_amz_date_in_basic_form() {
    let no_date = signed(root())
        .without("x-amz-date")
        .with("date", "Wed, 25 Nov 2026 12:36:00 GMT");
    assert_eq!(exception(&no_date), "IncompleteSignatureException");
    for date_time in [
        "2026-11-25T12:36:00Z",
        "20261125T123600",
        "20261125t123600Z",
        "20261125T1236000",
        "20261125T246000Z",
        "20261125T1236 0Z",
        "20261125T+23600Z",
        "20261131T123600Z",
        "20261125TTTTTTTZ",
    ] {
        let mut signer = Signer::at(NOON);
        date_time.clone_into(&mut signer.date_time);
        date_time
            .split('T')
            .next()
            .unwrap()
            .clone_into(&mut signer.date);
        let judged = judge(&signer.sign(root()));
        assert!(
            matches!(judged, Err(AuthError::Incomplete(_) | AuthError::Scope(_))),
            "{date_time}: {judged:?}"
        );
    }
}

#[test]
fn the_payload_is_hashed_whole() {
    let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let with = |value: &str| judge(&signed(root().with("x-amz-content-sha256", value)));
    assert_eq!(with(hash), Ok(()), "the hash of {{}}");
    for other in [
        "UNSIGNED-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "",
        &hash.to_uppercase(),
        &hash.replace('4', "5"),
    ] {
        assert!(matches!(with(other), Err(AuthError::Payload(_))), "{other}");
    }
    let unhashed = signed(root().with("x-amz-content-sha256", "UNSIGNED-PAYLOAD"));
    let (parts, keys) = (unhashed.parts().unwrap(), known_keys());
    let error = Claim::read(&parts, &keys, noon()).err().unwrap();
    assert!(
        error.to_string().contains("UNSIGNED-PAYLOAD"),
        "before the body is read: {error}"
    );
}

#[test]
fn what_the_endpoint_acts_on_has_to_be_signed() {
    for (name, value, needed) in [
        ("x-amz-target", "AWSMPMeteringService.MeterUsage", true),
        ("x-amz-anything", "1", true),
        ("idempotency-key", "night-job-7", true),
        ("content-type", "application/json", false),
        ("x-amz-user-agent", "aws-sdk-php", false),
        ("amz-sdk-invocation-id", "6cb75322", false),
        ("amz-sdk-request", "attempt=1; max=3", false),
        ("user-agent", "Boto3", false),
        ("x-amzn-trace-id", "Root=1", false),
        ("x-forwarded-for", "10.0.0.1", false),
    ] {
        let mut signer = Signer::at(NOON);
        signer.unsigned.push(name);
        let expected = if needed {
            "IncompleteSignatureException"
        } else {
            "none"
        };
        let call = root().with(name, value);
        assert_eq!(exception(&signer.sign(call.clone())), expected, "{name}");
        assert_eq!(exception(&signed(call.clone())), "none", "{name} signed");
        let replaced = signed(call).replace(name, "another");
        assert_ne!(exception(&replaced), "none", "{name} replaced");
    }
    for name in ["host", "x-amz-date"] {
        let mut signer = Signer::at(NOON);
        signer.unsigned.push(name);
        let call = signer.sign(root());
        assert_eq!(exception(&call), "IncompleteSignatureException", "{name}");
    }
}

#[test]
fn headers_that_could_mean_two_things_are_refused() {
    for name in [
        "host",
        "x-amz-date",
        "x-amz-target",
        "content-type",
        "idempotency-key",
        "amz-sdk-invocation-id",
        "authorization",
    ] {
        let call = signed(full_call().with("amz-sdk-invocation-id", "6cb75322"));
        let value = call.header(name).to_owned();
        assert_eq!(
            exception(&call.with(name, &value)),
            "IncompleteSignatureException",
            "{name} twice"
        );
    }
    let spaced = |inner: &str| signed(root().with("idempotency-key", &format!("job{inner}7")));
    assert_eq!(exception(&spaced(" ")), "none");
    let one_more = spaced(" ").replace("idempotency-key", "job  7");
    assert_eq!(exception(&one_more), "IncompleteSignatureException");
}

#[test]
fn spaces_fold_and_repeated_headers_join_in_the_order_sent() {
    let folded = signed(root().with("my-header", "a b c"));
    for sent in ["a   b c", "  a b c  ", " a b  c"] {
        let call = folded.clone().replace("my-header", sent);
        assert_eq!(judge(&call), Ok(()), "{sent:?}");
    }
    for sent in ["a\tb c", "ab c", "a b  d", "A b c"] {
        let call = folded.clone().replace("my-header", sent);
        assert_eq!(judge(&call), Err(AuthError::Mismatch), "{sent:?}");
    }
    let joined = signed(root().with("my-header", "4,1,3"));
    let send = |values: [&str; 3]| {
        let call = joined.clone().without("my-header");
        judge(
            &values
                .iter()
                .fold(call, |call, value| call.with("my-header", value)),
        )
    };
    assert_eq!(send(["4", " 1", "3 "]), Ok(()));
    assert_eq!(send(["1", "3", "4"]), Err(AuthError::Mismatch));
}

#[test]
fn a_query_is_the_same_in_any_order_and_spelling() {
    let call = signed(Call::new("GET", "/v1/usage?a=1&a=2&b=%2B~", ""));
    let send = |query: &str| {
        let target = format!("/v1/usage{query}");
        judge(&Call {
            target,
            ..call.clone()
        })
    };
    for same in [
        "?b=%2B~&a=2&a=1",
        "?a=2&b=+~&a=1",
        "?a=1&a=2&b=%2b%7E",
        "?%61=1&a=2&b=%2B~",
    ] {
        assert_eq!(send(same), Ok(()), "{same}");
    }
    for other in [
        "",
        "?a=1&b=%2B~",
        "?a=1&a=2&a=2&b=%2B~",
        "?a=1&a=2&b=%20~",
        "?a=1&a=2&b=%252B~",
        "?A=1&a=2&b=%2B~",
        "?a=1&a=2&b=%2B~&",
        "?a=1;a=2&b=%2B~",
    ] {
        assert_eq!(send(other), Err(AuthError::Mismatch), "{other}");
    }
}

#[test]
fn a_path_is_normalised_and_its_escapes_are_not_opened() {
    let call = signed(Call::new("GET", "/v1/usage", ""));
    let send = |target: &str| {
        let target = target.to_owned();
        judge(&Call {
            target,
            ..call.clone()
        })
    };
    for same in ["//v1///usage", "/./v1/x/../usage", "/../v1/usage"] {
        assert_eq!(send(same), Ok(()), "{same}");
    }
    for other in ["/v1/usage/", "/v1%2Fusage", "/v1/%75sage", "/v1/Usage", "/"] {
        assert_eq!(send(other), Err(AuthError::Mismatch), "{other}");
    }
}

#[test]
fn messages_never_show_a_secret_and_debug_neither() {
    let keys = known_keys();
    assert_eq!(
        format!("{keys:?}"),
        format!("{{{ACCESS_KEY_ID:?}, \"OTHER\"}}")
    );
}

#[test]
fn a_signing_key_that_is_remembered_judges_as_one_that_is_derived() {
    let keys = known_keys();
    let judge = |signer: &Signer| {
        let call = signer.sign(root());
        verify(&call.parts().unwrap(), &call.body, &keys, noon()).map(|_| ())
    };
    // More regions than are remembered, each met several times, and a wrong secret in between.
    for round in 0..3 {
        for region in 0..20 {
            let mut signer = Signer::at(NOON);
            signer.region = format!("region-{region}");
            assert_eq!(judge(&signer), Ok(()), "round {round}");
            signer.secret.push('x');
            assert_eq!(judge(&signer), Err(AuthError::Mismatch), "round {round}");
        }
    }
}
