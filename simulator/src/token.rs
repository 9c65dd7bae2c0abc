//! The signed answer of RegisterUsage, and every forgery of it that a client has to see through.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use getrandom::SysRng;
use hmac::{Hmac, KeyInit, Mac};
use rsa::pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::UnwrapErr;
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use rsa::{PrivateKey, pkcs1v15, pss};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use crate::config::{Claims, Key};

/// A signing key of one version.
#[derive(Clone, Debug)]
pub struct SigningKey {
    private: PrivateKey,
    /// SPKI PEM, as the seller gets it.
    pub public_pem: String,
}

/// A key can't be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "key version {version}: {problem}; expected 1024 to 8192 bits, or a PKCS #8 PEM file with an RSA private key"
)]
pub struct KeyError {
    version: u32,
    problem: String,
}

/// What a token says.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// The product asked for.
    pub product_code: &'a str,
    /// The key version asked for.
    pub key_version: u32,
    /// The nonce sent, if any.
    pub nonce: Option<&'a str>,
    /// Seconds since the epoch.
    pub issued_at: i64,
    /// How claims are spelled.
    pub claims: Claims,
    /// Whether the version is text.
    pub version_as_text: bool,
}

/// A way to answer with something that must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// No Signature member at all.
    Missing,
    /// `alg` none and no signature.
    AlgNone,
    /// HS256 with the public key's PEM as the secret.
    Hs256,
    /// RS256 by the right key.
    Rs256,
    /// PS256 by a key that nobody knows.
    OtherKey,
    /// The last characters cut off.
    Truncated,
    /// More after the end.
    TrailingData,
    /// The nonce stands twice.
    DuplicateClaims,
    /// Both spellings of the product code, with different values.
    ConflictingSpellings,
    /// Another nonce.
    OtherNonce,
    /// Another product.
    OtherProduct,
    /// Another key version.
    OtherVersion,
    /// A salt of no bytes.
    NoSalt,
    /// A salt of 20 bytes.
    ShortSalt,
    /// A salt of 62 bytes.
    LongSalt,
    /// Three megabytes.
    Huge,
}

const SALT_BYTES: usize = 32;
const HUGE_CHARS: usize = 3_000_000;

impl SigningKey {
    /// Generates a key or reads the configured file.
    pub fn new(key: &Key) -> Result<Self, KeyError> {
        let error = |problem: String| KeyError {
            version: key.version,
            problem,
        };
        let private = match &key.private_key_file {
            None => PrivateKey::new(&mut UnwrapErr(SysRng), key.bits)
                .map_err(|e| error(e.to_string()))?,
            Some(path) => {
                let pem = std::fs::read_to_string(path)
                    .map_err(|e| error(format!("{}: {e}", path.display())))?;
                PrivateKey::from_pkcs8_pem(&pem)
                    .map_err(|e| error(format!("{}: {e}", path.display())))?
            }
        };
        let public_pem = private
            .to_public_key()
            .to_public_key_pem(LineEnding::LF)
            .map_err(|e| error(e.to_string()))?;
        Ok(Self {
            private,
            public_pem,
        })
    }

    /// Signs as AWS does: PS256 with a salt of 32 bytes.
    pub fn sign(&self, statement: &Statement<'_>) -> String {
        self.sign_with_salt(SALT_BYTES, &statement.to_json())
    }

    /// What `attack` answers; `None` where there is no signature at all.
    pub fn forge(&self, attack: Attack, statement: &Statement<'_>) -> Option<String> {
        let claims = statement.to_json();
        let replaced = |statement: Statement<'_>| Some(self.sign(&statement));
        match attack {
            Attack::Missing => None,
            Attack::AlgNone => Some(format!("{}.", unsigned("none", &claims))),
            Attack::Hs256 => Some(self.hs256(&claims)),
            Attack::Rs256 => Some(self.rs256(&claims)),
            Attack::OtherKey => Some(stranger().sign(statement)),
            Attack::Truncated => {
                let mut token = self.sign(statement);
                token.truncate(token.len() - 8);
                Some(token)
            }
            Attack::TrailingData => Some(format!("{}.AAAA", self.sign(statement))),
            Attack::DuplicateClaims => {
                let twice = claims.replacen('{', "{\"nonce\":\"first\",\"nonce\":\"second\",", 1);
                Some(self.sign_with_salt(SALT_BYTES, &twice))
            }
            Attack::ConflictingSpellings => {
                let both = claims.replacen('{', "{\"productCode\":\"a\",\"ProductCode\":\"b\",", 1);
                Some(self.sign_with_salt(SALT_BYTES, &both))
            }
            Attack::OtherNonce => replaced(Statement {
                nonce: Some("another-nonce"),
                ..statement.clone()
            }),
            Attack::OtherProduct => replaced(Statement {
                product_code: "another-product",
                ..statement.clone()
            }),
            Attack::OtherVersion => replaced(Statement {
                key_version: statement.key_version + 1,
                ..statement.clone()
            }),
            Attack::NoSalt => Some(self.sign_with_salt(0, &claims)),
            Attack::ShortSalt => Some(self.sign_with_salt(20, &claims)),
            Attack::LongSalt => Some(self.sign_with_salt(62, &claims)),
            Attack::Huge => Some("A".repeat(HUGE_CHARS)),
        }
    }

    fn sign_with_salt(&self, salt_bytes: usize, claims: &str) -> String {
        let message = unsigned("PS256", claims);
        let key = pss::SigningKey::<Sha256>::new_with_salt_len(self.private.clone(), salt_bytes);
        let signature = key.sign_with_rng(&mut UnwrapErr(SysRng), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.to_vec()))
    }

    fn hs256(&self, claims: &str) -> String {
        let message = unsigned("HS256", claims);
        let mut mac = Hmac::<Sha256>::new_from_slice(self.public_pem.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(message.as_bytes());
        format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        )
    }

    fn rs256(&self, claims: &str) -> String {
        let message = unsigned("RS256", claims);
        let key = pkcs1v15::SigningKey::<Sha256>::new(self.private.clone());
        format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).to_vec())
        )
    }
}

impl Statement<'_> {
    fn to_json(&self) -> String {
        let [product, version, nonce] = match self.claims {
            Claims::Camel => ["productCode", "publicKeyVersion", "nonce"],
            Claims::Pascal => ["ProductCode", "PublicKeyVersion", "Nonce"],
        };
        let mut claims = Map::new();
        claims.insert(product.to_owned(), json!(self.product_code));
        let number = json!(self.key_version);
        let key_version = if self.version_as_text {
            Value::String(number.to_string())
        } else {
            number
        };
        claims.insert(version.to_owned(), key_version);
        claims.insert("iat".to_owned(), json!(self.issued_at));
        if let Some(text) = self.nonce {
            claims.insert(nonce.to_owned(), json!(text));
        }
        Value::Object(claims).to_string()
    }
}

fn stranger() -> SigningKey {
    let key = Key {
        version: 1,
        bits: 1024,
        private_key_file: None,
        rotated_at: None,
    };
    SigningKey::new(&key).expect("1024 bits can be generated")
}

fn unsigned(algorithm: &str, claims: &str) -> String {
    let header = format!("{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"}}");
    format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    )
}
