//! The configuration: every error at once, each with its origin, its value and what was expected.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate::config::metering::Listen;
use tollgate::config::settings::{SETTINGS, Sources};
use tollgate::config::{
    EntitlementCheck, OnDenied, OnUnavailable, ProofConfig, RunConfig, health_address,
};

struct Given {
    folder: tempfile::TempDir,
    flags: BTreeMap<&'static str, String>,
    environment: BTreeMap<String, String>,
    sealed: Option<String>,
}

/// A configuration that is right: product code and a public key in the environment.
fn valid() -> Given {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("1.pem");
    std::fs::write(&key, PUBLIC_KEY).unwrap();
    let environment = BTreeMap::from([
        ("TOLLGATE_PRODUCT_CODE".to_owned(), "prod-1".to_owned()),
        (
            "TOLLGATE_PUBLIC_KEYS".to_owned(),
            format!("1={}", key.display()),
        ),
    ]);
    Given {
        folder,
        flags: BTreeMap::new(),
        environment,
        sealed: None,
    }
}

/// An RSA key of 1024 bits that signs nothing.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDN/hEBUSCiLrncqugU1dqgVa77
jAp/Fu7ataiWEZT8QMxAm38hCorueelUXY5+5hQ++YB+FOcIjEKtbp++Ct0T3kMa
n/ybZEmKWOfXcuqhxKcMTy1Fj9kZ+5UCkWAysIdqmfpHy5ELPYU3+xdYXnAYTNJ3
ivA2YDtccMEGQhW2nwIDAQAB
-----END PUBLIC KEY-----
";

impl Given {
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    fn flag(mut self, name: &'static str, value: &str) -> Self {
        self.flags.insert(name, value.to_owned());
        self
    }

    fn sealed(mut self, text: &str) -> Self {
        self.sealed = Some(text.to_owned());
        self
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn sources(&self) -> Result<Sources, String> {
        let environment = self
            .environment
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        let mut sources = Sources::new(self.flags.clone(), environment);
        if let Some(text) = &self.sealed {
            let path = self.file("sealed.toml", text.as_bytes());
            sources.seal(&path).map_err(|errors| {
                errors
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            })?;
        }
        Ok(sources)
    }

    fn read(&self) -> Result<RunConfig, String> {
        RunConfig::read(&self.sources()?).map_err(|errors| errors.to_string())
    }

    fn error(&self) -> String {
        self.read().expect_err("the configuration is wrong")
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = valid().read().unwrap();
    assert_eq!(config.status_file, Path::new("/run/tollgate/status.json"));
    assert_eq!(config.state_dir, Path::new("/var/lib/tollgate"));
    assert_eq!(config.health_listen.to_string(), "0.0.0.0:8422");
    assert_eq!(config.register_deadline, Duration::from_mins(30));
    assert_eq!(config.on_denied, OnDenied::Exit);
    assert_eq!(config.on_unavailable, OnUnavailable::Exit);
    assert_eq!(config.shutdown_grace, Duration::from_secs(25));
    assert!(matches!(
        config.check,
        EntitlementCheck::RegisterUsage { .. }
    ));
    assert!(config.nonce.is_none() && config.endpoint_override_allowed);
}

#[test]
fn every_error_is_reported_at_once_with_origin_value_and_expectation() {
    let errors = valid()
        .without("TOLLGATE_PRODUCT_CODE")
        .variable("TOLLGATE_REGISTER_DEADLINE", "30")
        .variable("TOLLGATE_ON_DENIED", "panic")
        .variable("TOLLGATE_PRODCT_CODE", "x")
        .flag("health-listen", "everywhere")
        .flag("on-unavailable", "grace")
        .error();
    assert_eq!(errors.lines().count(), 6, "{errors}");
    for expected in [
        "TOLLGATE_PRODUCT_CODE (or --product-code): it is required and not set",
        "TOLLGATE_REGISTER_DEADLINE is \"30\": it is no duration; expected a whole number and a unit",
        "TOLLGATE_ON_DENIED is \"panic\": it is neither; expected exit or hold",
        "TOLLGATE_PRODCT_CODE is \"x\": there is no such setting; expected perhaps TOLLGATE_PRODUCT_CODE",
        "--health-listen is \"everywhere\"",
        "--on-unavailable is \"grace\"",
    ] {
        assert!(errors.contains(expected), "{expected}\nis not in\n{errors}");
    }
}

#[test]
fn a_flag_wins_over_its_variable() {
    let config = valid()
        .variable("TOLLGATE_STATE_DIR", "/a")
        .flag("state-dir", "/b")
        .read()
        .unwrap();
    assert_eq!(config.state_dir, Path::new("/b"));
}

#[test]
fn the_product_code_is_checked_against_the_service_model() {
    let long = "x".repeat(256);
    for (code, problem) in [
        ("", "empty"),
        (long.as_str(), "256 characters"),
        ("a b", "' '"),
        ("a\nb", "'\\n'"),
        ("ü", "'ü'"),
    ] {
        let error = valid().variable("TOLLGATE_PRODUCT_CODE", code).error();
        assert!(
            error.contains(problem) && error.lines().count() == 1,
            "{error}"
        );
    }
    for code in [
        "4w1vgsrkqdkypbz43g7qkk4uz",
        "a/b=c:d_e.f@g-h",
        &"x".repeat(255),
    ] {
        assert!(
            valid()
                .variable("TOLLGATE_PRODUCT_CODE", code)
                .read()
                .is_ok()
        );
    }
}

#[test]
fn key_files_that_are_no_rsa_public_key_are_named_with_what_they_are() {
    let given = valid();
    for (content, problem) in [
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "PRIVATE key",
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            "PRIVATE key",
        ),
        (
            "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
            "PRIVATE key",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "certificate",
        ),
        (
            "-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n",
            "PKCS #1",
        ),
        (EC_PUBLIC_KEY, "not an RSA key"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "can't be decoded",
        ),
        ("-----BEGIN PUBLIC KEY-----\n", "can't be decoded"),
        ("", "no PEM block"),
        ("hello", "no PEM block"),
    ] {
        let path = given.file("key.pem", content.as_bytes());
        let value = format!("7={}", path.display());
        let error = valid().variable("TOLLGATE_PUBLIC_KEYS", &value).error();
        assert!(
            error.contains(problem) && error.contains("version 7"),
            "{content:?}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let binary = given.file("key.bin", &[0xff; 100]);
    let large = given.file("large.pem", &vec![b'x'; 100_000]);
    for (path, problem) in [
        (binary.as_path(), "no PEM block"),
        (&large, "longer than"),
        (Path::new("/nonexistent/key.pem"), "No such file"),
        (given.folder.path(), "can't be read"),
    ] {
        let error = valid()
            .variable("TOLLGATE_PUBLIC_KEYS", &format!("1={}", path.display()))
            .error();
        assert!(error.contains(problem), "{error}");
    }
}

const EC_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE+/ZZ+yvzlCZXuuIuOBkl3+RxnPi2
gG6JmFEi8zgW7JNhYip5beg54Ja4qdqAceqTxDKnc9CZ8phhJzcgKmC+oQ==
-----END PUBLIC KEY-----
";

#[test]
fn key_lists_are_checked() {
    for value in [
        "",
        "1",
        "=x",
        "0=x",
        "-1=x",
        "one=x",
        "1=",
        "1=a,1=b",
        "1=a,",
        "99999999999=x",
    ] {
        let error = valid().variable("TOLLGATE_PUBLIC_KEYS", value).error();
        assert!(error.contains("TOLLGATE_PUBLIC_KEYS"), "{value}: {error}");
    }
}

#[test]
fn the_nonce_file_has_to_hold_a_nonce() {
    let given = valid();
    let path = given.file("nonce", b"");
    let value = path.display().to_string();
    for (content, problem) in [
        (String::new(), "empty"),
        ("\n".to_owned(), "empty"),
        ("x".repeat(256), "more than 255"),
        ("a\0b".to_owned(), "printable"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = valid().variable("TOLLGATE_NONCE_FILE", &value).error();
        assert!(error.contains(problem), "{error}");
    }
    let error = valid()
        .variable("TOLLGATE_NONCE_FILE", "/nonexistent/nonce")
        .error();
    assert!(error.contains("can't be read"), "{error}");
    std::fs::write(&path, "n-1\n").unwrap();
    let config = valid()
        .variable("TOLLGATE_NONCE_FILE", &value)
        .read()
        .unwrap();
    assert_eq!(config.nonce.unwrap().as_str(), "n-1");
}

#[test]
fn public_keys_are_required_only_where_a_signature_is_checked() {
    let error = valid().without("TOLLGATE_PUBLIC_KEYS").error();
    assert!(
        error.contains("TOLLGATE_PUBLIC_KEYS (or --public-keys): it is required"),
        "{error}"
    );
    for check in ["none", "meter-usage:requests"] {
        let config = valid()
            .without("TOLLGATE_PUBLIC_KEYS")
            .variable("TOLLGATE_ENTITLEMENT_CHECK", check)
            .read()
            .unwrap();
        assert_eq!(config.check.name(), check.split(':').next().unwrap());
    }
    for check in [
        "",
        "meter-usage",
        "meter-usage:",
        "meterusage:x",
        "None",
        "register-usage:x",
    ] {
        valid()
            .variable("TOLLGATE_ENTITLEMENT_CHECK", check)
            .error();
    }
}

#[test]
fn zero_and_endless_durations_are_refused() {
    for (name, value) in [
        ("TOLLGATE_REGISTER_DEADLINE", "0s"),
        ("TOLLGATE_SHUTDOWN_GRACE", "0ms"),
        ("TOLLGATE_ON_UNAVAILABLE", "grace:0s"),
        ("TOLLGATE_REGISTER_DEADLINE", "100000h"),
    ] {
        assert!(valid().variable(name, value).error().contains(name));
    }
    let config = valid()
        .variable("TOLLGATE_ON_UNAVAILABLE", "grace:2h")
        .read()
        .unwrap();
    assert_eq!(
        config.on_unavailable,
        OnUnavailable::Grace(Duration::from_hours(2))
    );
}

#[test]
fn what_kubernetes_injects_for_a_service_is_no_unknown_setting() {
    let given = valid()
        .variable("TOLLGATE_SERVICE_HOST", "10.0.0.1")
        .variable("TOLLGATE_SERVICE_PORT", "80")
        .variable("TOLLGATE_SERVICE_PORT_HTTP", "80")
        .variable("TOLLGATE_PORT", "tcp://10.0.0.1:80")
        .variable("TOLLGATE_PORT_80_TCP", "tcp://10.0.0.1:80")
        .variable("TOLLGATE_PORT_80_TCP_ADDR", "10.0.0.1")
        .variable("TOLLGATE_SAAS_SERVICE_HOST", "10.0.0.1");
    assert!(given.read().is_ok());
    assert!(
        given
            .variable("TOLLGATE_PORT", "80")
            .error()
            .contains("no such setting")
    );
}

#[test]
fn a_variable_that_is_not_utf8_is_an_error() {
    let name = OsString::from("TOLLGATE_LOG");
    let value = OsString::from_vec(vec![0xff]);
    let other = (OsString::from("OTHER"), OsString::from_vec(vec![0xff]));
    let sources = Sources::new(BTreeMap::new(), [(name, value), other].into_iter());
    let errors = health_address(&sources).unwrap_err().to_string();
    assert_eq!(
        errors,
        "TOLLGATE_LOG: its value is not UTF-8; expected plain text"
    );
}

#[test]
fn the_sealed_file_wins_and_can_not_be_contradicted() {
    let sealed =
        "product_code = \"sealed\"\non_denied = \"hold\"\nallow_endpoint_override = false\n";
    let config = valid()
        .without("TOLLGATE_PRODUCT_CODE")
        .sealed(sealed)
        .read()
        .unwrap();
    assert_eq!(config.product_code.as_str(), "sealed");
    assert_eq!(config.on_denied, OnDenied::Hold);
    assert!(!config.endpoint_override_allowed);

    let error = valid().flag("on-denied", "exit").sealed(sealed).error();
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(error.contains(
        "TOLLGATE_PRODUCT_CODE is \"prod-1\": the seller's sealed file sets this to \"sealed\""
    ));
    assert!(error.contains("--on-denied is \"exit\""), "{error}");

    let agreeing = valid()
        .variable("TOLLGATE_PRODUCT_CODE", "sealed")
        .flag("on-denied", "hold");
    assert!(agreeing.sealed(sealed).read().is_ok());
}

#[test]
fn a_list_in_the_sealed_file_is_a_list() {
    let given = valid();
    let key = given
        .file("1.pem", PUBLIC_KEY.as_bytes())
        .display()
        .to_string();
    let sealed = format!("public_keys = [\"1={key}\", \"2={key}\"]");
    let config = valid()
        .without("TOLLGATE_PUBLIC_KEYS")
        .sealed(&sealed)
        .read()
        .unwrap();
    let EntitlementCheck::RegisterUsage { keys, .. } = config.check else {
        panic!("it has keys")
    };
    assert_eq!(keys.versions().collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_sealed_file_with_mistakes_is_refused() {
    for (text, problem) in [
        ("product_code = ", "sealed.toml"),
        ("product-code = \"x\"", "there is no such setting"),
        ("product_code = 7", "expected a string"),
        ("public_keys = [1]", "expected a list of strings"),
        ("allow_endpoint_override = \"no\"", "expected true or false"),
        ("[product_code]\nx = 1", "expected a string"),
    ] {
        let error = valid().sealed(text).error();
        assert!(error.contains(problem), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// A file of one client key with this mode.
fn client_keys(given: &Given, mode: u32) -> String {
    let path = given.file(
        "clients.toml",
        b"[[key]]\naccess_key_id = \"APP1\"\nsecret_access_key = \"a-secret-of-some-length\"\n",
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

#[test]
fn without_signatures_the_endpoint_is_on_loopback_or_a_socket() {
    let default = valid().read().unwrap().metering;
    assert_eq!(default.listen.to_string(), "127.0.0.1:8421");
    assert!(default.client_auth.is_none());
    let longest = format!("unix:/{}", "p".repeat(106));
    for listen in [
        "127.0.0.2:1",
        "[::1]:8421",
        "unix:/run/tollgate/m.sock",
        &longest,
    ] {
        let config = valid().variable("TOLLGATE_LISTEN", listen).read().unwrap();
        assert_eq!(config.metering.listen.to_string(), listen);
    }
    for (listen, problem) in [
        ("0.0.0.0:8421", "anybody there could meter"),
        ("[::]:8421", "anybody there could meter"),
        ("10.0.0.7:8421", "anybody there could meter"),
        ("tollgate:8421", "no socket address"),
        ("8421", "no socket address"),
        ("unix:", "no absolute path"),
        ("unix:run/m.sock", "no absolute path"),
        ("unix:/run/", "no absolute path"),
        ("unix:/run/m\0.sock", "no absolute path"),
        (
            &format!("{longest}p"),
            "108 bytes, and the kernel takes 107",
        ),
    ] {
        let error = valid().variable("TOLLGATE_LISTEN", listen).error();
        assert!(error.contains(problem), "{listen}: {error}");
        assert!(error.contains("TOLLGATE_CLIENT_AUTH_FILE"), "{error}");
    }
}

#[test]
fn with_signatures_the_endpoint_may_be_anywhere() {
    let given = valid();
    let keys = client_keys(&given, 0o440);
    let given = given
        .flag("client-auth-file", &keys)
        .variable("TOLLGATE_LISTEN", "0.0.0.0:8421");
    let config = given.read().unwrap().metering;
    assert_eq!(config.listen, Listen::Tcp("0.0.0.0:8421".parse().unwrap()));
    assert!(!format!("{config:?}").contains("a-secret-of-some-length"));
    for own in [
        "http://127.0.0.1:8421",
        "http://localhost:8421/",
        "http://[::1]:8421",
    ] {
        let error = valid()
            .flag("client-auth-file", &keys)
            .variable("TOLLGATE_LISTEN", "0.0.0.0:8421")
            .variable("AWS_ENDPOINT_URL_MARKETPLACE_METERING", own)
            .error();
        assert!(error.contains("own metering endpoint"), "{error}");
    }
    for (listen, url, is_own) in [
        ("10.0.0.7:8421", "http://10.0.0.7:8421", true),
        ("10.0.0.7:8421", "http://10.0.0.8:8421", false),
        ("10.0.0.7:8421", "http://127.0.0.1:8421", false),
        ("unix:/run/m.sock", "http://127.0.0.1:8421", false),
    ] {
        let read = valid()
            .flag("client-auth-file", &keys)
            .variable("TOLLGATE_LISTEN", listen)
            .variable("AWS_ENDPOINT_URL", url)
            .read();
        assert_eq!(read.is_err(), is_own, "{listen} and {url}: {read:?}");
    }
}

#[test]
fn client_keys_that_cannot_be_used_are_one_error_and_show_no_secret() {
    let given = valid();
    let keys = client_keys(&given, 0o644);
    let error = given
        .variable("TOLLGATE_CLIENT_AUTH_FILE", &keys)
        .variable("TOLLGATE_LISTEN", "0.0.0.0:8421")
        .error();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains("TOLLGATE_CLIENT_AUTH_FILE") && error.contains("0644"),
        "{error}"
    );
    assert!(!error.contains("a-secret-of-some-length"), "{error}");
    let sealed = valid();
    let keys = client_keys(&sealed, 0o400);
    let sealed = sealed.sealed(&format!("client_auth_file = {keys:?}"));
    assert!(sealed.read().unwrap().metering.client_auth.is_some());
    let error = sealed
        .variable("TOLLGATE_CLIENT_AUTH_FILE", "/other")
        .error();
    assert!(error.contains("sealed"), "{error}");
}

#[test]
fn healthcheck_asks_loopback_where_the_listener_takes_any_address() {
    for (listen, asked) in [
        ("0.0.0.0:8422", "127.0.0.1:8422"),
        ("[::]:9000", "[::1]:9000"),
        ("10.0.0.7:1", "10.0.0.7:1"),
    ] {
        let sources = valid()
            .variable("TOLLGATE_HEALTH_LISTEN", listen)
            .sources()
            .unwrap();
        assert_eq!(health_address(&sources).unwrap().to_string(), asked);
    }
}

#[test]
fn a_status_file_argument_wins_over_the_setting() {
    let given = valid().variable("TOLLGATE_STATUS_FILE", "/a");
    let sources = given.sources().unwrap();
    let config = ProofConfig::read(&sources, Some(Path::new("/b"))).unwrap();
    assert_eq!(config.status_file, Path::new("/b"));
    assert_eq!(
        ProofConfig::read(&sources, None).unwrap().status_file,
        Path::new("/a")
    );
}

#[test]
fn readme_lists_every_setting() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for setting in SETTINGS {
        assert!(
            readme.contains(&setting.variable()),
            "{} is not in README.md",
            setting.variable()
        );
    }
}
