//! Attacks on the signature, each by name: whatever is not AWS's own answer to this very request proves nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use getrandom::SysRng;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use rsa::rand_core::UnwrapErr;
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use rsa::{PrivateKey, PublicKey, pkcs1v15, pss};
use sha2::Sha256;
use tollgate::entitlement::keys::{self, PublicKeys};
use tollgate::entitlement::signature::{Expected, SignatureError, verify};
use tollgate::usage::ProductCode;

const PRODUCT: &str = "4w1vgsrkqdkypbz43g7qkk4uz";
const NONCE: &str = "the-nonce-of-this-request";
const HEADER: &str = r#"{"alg":"PS256","typ":"JWT"}"#;
const CLAIMS: &str = r#"{"productCode":"4w1vgsrkqdkypbz43g7qkk4uz","publicKeyVersion":1,"iat":1769904000,"nonce":"the-nonce-of-this-request"}"#;

static KEY_1024: LazyLock<PrivateKey> = LazyLock::new(|| generate(1024));
static KEY_2048: LazyLock<PrivateKey> = LazyLock::new(|| generate(2048));
static GENUINE: LazyLock<String> = LazyLock::new(genuine);
static OTHER_KEY: LazyLock<PrivateKey> = LazyLock::new(|| generate(1024));

fn generate(bits: usize) -> PrivateKey {
    PrivateKey::new(&mut UnwrapErr(SysRng), bits).unwrap()
}

fn public(key: &PrivateKey) -> PublicKey {
    key.to_public_key()
}

fn signed(key: &PrivateKey, salt_bytes: usize, header: &str, claims: &str) -> String {
    let message = unsigned(header, claims);
    let key = pss::SigningKey::<Sha256>::new_with_salt_len(key.clone(), salt_bytes);
    let signature = key.sign_with_rng(&mut UnwrapErr(SysRng), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.to_vec()))
}

fn unsigned(header: &str, claims: &str) -> String {
    format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    )
}

fn genuine() -> String {
    signed(&KEY_1024, 32, HEADER, CLAIMS)
}

fn claiming(claims: &str) -> Result<(), SignatureError> {
    check(&signed(&KEY_1024, 32, HEADER, claims))
}

fn check(token: &str) -> Result<(), SignatureError> {
    check_with(&KEY_1024, token)
}

fn check_with(key: &PrivateKey, token: &str) -> Result<(), SignatureError> {
    let keys = PublicKeys::new(BTreeMap::from([(1, public(key))])).unwrap();
    let product_code = ProductCode::parse(PRODUCT).unwrap();
    verify(
        token,
        &keys,
        Expected {
            product_code: &product_code,
            key_version: 1,
            nonce: Some(NONCE),
        },
    )
}

#[test]
fn a_genuine_signature_verifies_with_1024_and_2048_bits() {
    assert_eq!(check(&genuine()), Ok(()));
    assert_eq!(
        check_with(&KEY_2048, &signed(&KEY_2048, 32, HEADER, CLAIMS)),
        Ok(())
    );
}

#[test]
fn both_spellings_and_both_forms_of_the_version_verify() {
    for claims in [
        CLAIMS.to_owned(),
        CLAIMS.replace(":1,", ":\"1\","),
        CLAIMS
            .replace("productCode", "ProductCode")
            .replace("publicKeyVersion", "PublicKeyVersion")
            .replace("nonce\":", "Nonce\":"),
        CLAIMS.replace("\"iat\"", "\"PublicKeyVersion\":\"1\",\"iat\""),
    ] {
        assert_eq!(claiming(&claims), Ok(()), "{claims}");
    }
}

#[test]
fn a_key_file_of_1024_bits_with_windows_line_ends_is_accepted() {
    let pem = public(&KEY_1024)
        .to_public_key_pem(LineEnding::CRLF)
        .unwrap();
    assert!(keys::parse_key(&pem).is_ok());
}

#[test]
fn alg_none_is_refused() {
    for algorithm in ["none", "None", "NONE", ""] {
        let header = HEADER.replace("PS256", algorithm);
        let bare = format!("{}.", unsigned(&header, CLAIMS));
        assert_eq!(
            check(&bare),
            Err(SignatureError::Algorithm(algorithm.to_owned()))
        );
        assert!(check(&signed(&KEY_1024, 32, &header, CLAIMS)).is_err());
    }
    assert!(check(&unsigned(HEADER, CLAIMS)).is_err());
    assert!(check(&format!("{}.", unsigned(HEADER, CLAIMS))).is_err());
}

#[test]
fn hs256_with_the_public_key_as_secret_is_refused() {
    let pem = public(&KEY_1024).to_public_key_pem(LineEnding::LF).unwrap();
    let message = unsigned(&HEADER.replace("PS256", "HS256"), CLAIMS);
    let mut mac = Hmac::<Sha256>::new_from_slice(pem.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    let token = format!(
        "{message}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    );
    assert_eq!(
        check(&token),
        Err(SignatureError::Algorithm("HS256".to_owned()))
    );
}

#[test]
fn rs256_is_refused_under_its_own_name_and_under_ps256() {
    for header in [HEADER.replace("PS256", "RS256"), HEADER.to_owned()] {
        let message = unsigned(&header, CLAIMS);
        let key = pkcs1v15::SigningKey::<Sha256>::new(KEY_1024.clone());
        let token = format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).to_vec())
        );
        assert!(check(&token).is_err(), "{header}");
    }
}

#[test]
fn another_key_is_refused() {
    assert_eq!(
        check(&signed(&OTHER_KEY, 32, HEADER, CLAIMS)),
        Err(SignatureError::Invalid(1))
    );
    assert_eq!(
        check(&signed(&KEY_2048, 32, HEADER, CLAIMS)),
        Err(SignatureError::Invalid(1))
    );
}

#[test]
fn a_truncated_token_is_refused_at_every_length() {
    let token = genuine();
    for length in 0..token.len() {
        assert!(check(&token[..length]).is_err(), "{length}");
    }
}

#[test]
fn trailing_data_is_refused() {
    let token = genuine();
    for tail in [".", ".x", "A", "AAAA", "=", " ", "\n", "\0"] {
        assert!(check(&format!("{token}{tail}")).is_err(), "{tail:?}");
        assert!(check(&format!("{tail}{token}")).is_err(), "{tail:?}");
    }
    let (signed_part, _) = token.rsplit_once('.').unwrap();
    let (_, claims) = signed_part.split_once('.').unwrap();
    assert!(check(&token.replace(claims, &format!("{claims}AAAA"))).is_err());
}

#[test]
fn every_flipped_character_is_refused() {
    let token = genuine();
    for at in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        assert!(
            check(std::str::from_utf8(&forged).unwrap()).is_err(),
            "{at}"
        );
    }
}

#[test]
fn duplicate_claims_are_refused_even_when_they_agree() {
    for extra in [
        r#","nonce":"the-nonce-of-this-request"}"#,
        r#","nonce":"other"}"#,
        r#","iat":1}"#,
    ] {
        let claims = CLAIMS.replace('}', extra);
        assert!(
            matches!(claiming(&claims), Err(SignatureError::Malformed(_))),
            "{claims}"
        );
    }
    let header = HEADER.replace('}', r#","alg":"PS256"}"#);
    assert!(check(&signed(&KEY_1024, 32, &header, CLAIMS)).is_err());
}

#[test]
fn both_spellings_with_different_values_are_refused() {
    for (claim, extra) in [
        ("productCode", r#","ProductCode":"other"}"#),
        ("publicKeyVersion", r#","PublicKeyVersion":2}"#),
        ("nonce", r#","Nonce":"other"}"#),
    ] {
        let refused = claiming(&CLAIMS.replace('}', extra));
        assert_eq!(
            refused,
            Err(SignatureError::Claim(
                claim,
                "is there in both spellings with different values"
            ))
        );
    }
}

#[test]
fn another_nonce_is_refused() {
    assert_eq!(
        claiming(&CLAIMS.replace(NONCE, "yesterday's")),
        Err(SignatureError::OtherNonce)
    );
    assert_eq!(
        claiming(&CLAIMS.replace(NONCE, "")),
        Err(SignatureError::OtherNonce)
    );
    assert_eq!(
        claiming(&CLAIMS.replace(&format!(",\"nonce\":\"{NONCE}\""), "")),
        Err(SignatureError::Claim("nonce", "is missing"))
    );
}

#[test]
fn another_product_is_refused() {
    assert_eq!(
        claiming(&CLAIMS.replace(PRODUCT, "cheaper-product")),
        Err(SignatureError::OtherProduct("cheaper-product".to_owned()))
    );
}

#[test]
fn another_version_is_refused() {
    assert_eq!(
        claiming(&CLAIMS.replace(":1,", ":2,")),
        Err(SignatureError::OtherVersion(2))
    );
    for version in [
        "-1", "1.0", "1.5", "\"one\"", "\"\"", "\" 1\"", "\"+1\"", "null", "[1]", "true",
    ] {
        let refused = claiming(&CLAIMS.replace(":1,", &format!(":{version},")));
        assert!(refused.is_err(), "{version}");
    }
    let keys = PublicKeys::new(BTreeMap::from([(2, public(&KEY_1024))])).unwrap();
    let product_code = ProductCode::parse(PRODUCT).unwrap();
    let expected = Expected {
        product_code: &product_code,
        key_version: 1,
        nonce: Some(NONCE),
    };
    assert_eq!(
        verify(&genuine(), &keys, expected),
        Err(SignatureError::NoKey(1))
    );
}

#[test]
fn a_salt_of_the_wrong_length_is_refused() {
    for salt_bytes in [0, 1, 20, 31, 33, 62] {
        let refused = check(&signed(&KEY_1024, salt_bytes, HEADER, CLAIMS));
        assert_eq!(refused, Err(SignatureError::Invalid(1)), "{salt_bytes}");
    }
}

#[test]
fn extensions_marked_critical_are_refused() {
    let header = HEADER.replace('}', r#","crit":["b64"],"b64":false}"#);
    assert!(check(&signed(&KEY_1024, 32, &header, CLAIMS)).is_err());
}

#[test]
fn padding_and_the_standard_alphabet_are_refused() {
    let token = genuine();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let padded = base64::engine::general_purpose::URL_SAFE.encode(&bytes);
    assert!(check(&format!("{message}.{padded}")).is_err());
    assert!(check(&format!("{message}.{}", STANDARD.encode(&bytes))).is_err());
}

#[test]
fn three_megabytes_are_refused_without_being_decoded() {
    let token = "A".repeat(3_000_000);
    assert_eq!(check(&token), Err(SignatureError::TooLong(3_000_000)));
}

#[test]
fn an_empty_signature_is_missing() {
    assert_eq!(check(""), Err(SignatureError::Missing));
}

proptest! {
    #[test]
    fn no_text_panics_or_verifies(token in "\\PC{0,300}") {
        prop_assert!(check(&token).is_err());
    }

    #[test]
    fn no_three_parts_panic_or_verify(header in any::<Vec<u8>>(), claims in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let parts = [header, claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        prop_assert!(check(&parts.join(".")).is_err());
    }

    #[test]
    fn no_edit_of_a_genuine_token_verifies(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, "[A-Za-z0-9_.=+/-]"), 1..5),
    ) {
        let genuine = GENUINE.as_str();
        let mut token = genuine.to_owned();
        for (place, what, put) in edits {
            let at = place.index(token.len().max(1)).min(token.len());
            match what {
                0 => token.insert_str(at, &put),
                1 if at < token.len() => {
                    token.remove(at);
                }
                2 => token.truncate(at),
                _ => token.replace_range(at..(at + 1).min(token.len()), &put),
            }
        }
        prop_assert!(token == genuine || check(&token).is_err(), "{}", token);
    }

    #[test]
    fn a_signed_token_with_any_other_json_is_refused(claims in "\\{(\"(nonce|Nonce|productCode|publicKeyVersion)\":(1|\"x\"|null|\\{\\})){0,3}\\}?") {
        prop_assert!(claiming(&claims).is_err());
    }
}
