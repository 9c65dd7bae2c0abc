//! The file of keys: what it may hold and who may read it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tollgate::auth::ClientAuth;

use super::*;

struct File {
    folder: tempfile::TempDir,
}

impl File {
    fn with(text: &str) -> Self {
        let file = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        file.write(text);
        file.mode(0o400)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("keys.toml")
    }

    fn write(&self, text: &str) {
        let fresh = self.folder.path().join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o400)).unwrap();
        std::fs::rename(fresh, self.path()).unwrap();
    }

    fn mode(self, mode: u32) -> Self {
        std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// What is wrong with it; empty for nothing.
    fn problem(&self) -> String {
        ClientAuth::load(&self.path()).map_or_else(|error| error.to_string(), |_| String::new())
    }
}

fn key(id: &str, secret: &str) -> String {
    format!("[[key]]\naccess_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\n")
}

#[test]
fn a_file_that_others_can_read_or_change_is_refused() {
    let text = key("APP1", SECRET);
    for mode in [0o400, 0o600, 0o440, 0o640, 0o660] {
        assert_eq!(File::with(&text).mode(mode).problem(), "", "{mode:o}");
    }
    for mode in [0o444, 0o644, 0o604, 0o602, 0o666, 0o777] {
        let problem = File::with(&text).mode(mode).problem();
        assert!(problem.contains(&format!("{mode:04o}")), "{problem}");
        assert!(problem.contains("fsGroup"), "{problem}");
    }
}

#[test]
fn a_link_is_followed_as_kubernetes_lays_them() {
    let file = File::with(&key("APP1", SECRET));
    let link = file.folder.path().join("link");
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    assert!(ClientAuth::load(&link).is_ok());
}

#[test]
fn what_is_wrong_is_said_without_the_secret() {
    let good = key("APP1", SECRET);
    for (text, expected) in [
        (String::new(), "no [[key]]"),
        ("key = []".to_owned(), "no [[key]]"),
        (
            format!("{good}{good}"),
            "key 2: its access_key_id stands twice",
        ),
        (key("APP1", ""), "key 1: its secret_access_key"),
        (
            key("APP1", "with spaces in the middle"),
            "key 1: its secret_access_key",
        ),
        (
            key("APP1", &"s".repeat(129)),
            "key 1: its secret_access_key",
        ),
        (key("", SECRET), "key 1: its access_key_id"),
        (key("APP/1", SECRET), "key 1: its access_key_id"),
        (key(&"A".repeat(129), SECRET), "key 1: its access_key_id"),
        (
            "[[key]]\naccess_key_id = \"APP1\"\n".to_owned(),
            "missing field",
        ),
        (format!("{good}session_token = \"x\"\n"), "unknown field"),
        (format!("region = \"x\"\n{good}"), "unknown field"),
        (
            "[[key]]\naccess_key_id = \"A\"\nsecret_access_key = 12345678901234567\n".to_owned(),
            "line 3",
        ),
        (
            format!("[[key]]\naccess_key_id = \"A\"\nsecret_access_key = {SECRET}\n"),
            "line 3",
        ),
        (
            format!("[[key]]\naccess_key_id = \"A\"\nsecret_access_key = \"{SECRET}\n"),
            "line 3",
        ),
        (format!("{SECRET}\n"), "line 1"),
        (
            (0..257).map(|n| key(&format!("APP{n}"), SECRET)).collect(),
            "more than 256",
        ),
        (" ".repeat(64 * 1024 + 1), "longer than 65536"),
    ] {
        let problem = File::with(&text).problem();
        assert!(problem.contains(expected), "{problem} for {text}");
        for secret in [SECRET, "12345678901234567", "short", "in the middle"] {
            assert!(!problem.contains(secret), "{problem}");
        }
    }
}

#[test]
fn something_else_than_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |name: &str| {
        let path = folder.path().join(name);
        ClientAuth::load(&path).unwrap_err().to_string()
    };
    assert!(problem("absent").contains("can't be read"));
    assert!(problem("").contains("not a file"));
    std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
    std::fs::set_permissions(
        folder.path().join("binary"),
        std::fs::Permissions::from_mode(0o400),
    )
    .unwrap();
    assert!(problem("binary").contains("can't be read"));
}

#[test]
fn a_bad_file_leaves_the_keys_from_before_in_force() {
    let file = File::with(&key("APP1", SECRET));
    let auth = ClientAuth::load(&file.path()).unwrap();
    let same = auth.clone();
    file.write("[[key]]\n");
    assert!(auth.reload().is_err());
    assert_eq!(format!("{:?}", same.keys()), "{\"APP1\"}");
    file.write(&key("APP2", SECRET));
    auth.reload().unwrap();
    assert_eq!(format!("{:?}", same.keys()), "{\"APP2\"}");
    std::fs::remove_file(file.path()).unwrap();
    assert!(auth.reload().is_err());
    let shown = format!("{same:?}");
    assert!(shown.contains("APP2") && !shown.contains(SECRET), "{shown}");
}
