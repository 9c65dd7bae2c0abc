//! What the simulator is set up with: a TOML file, or [`Config::default`].

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The whole set-up.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: String,
    /// The region in which everything runs.
    pub region: String,
    /// How long a metering hour is, in milliseconds: 3,600,000 is the real one.
    pub period_ms: u64,
    /// Seed of the faults that strike at a rate.
    pub seed: u64,
    /// The products.
    #[serde(rename = "product")]
    pub products: Vec<Product>,
    /// Callers with fixed credentials.
    #[serde(rename = "caller")]
    pub callers: Vec<Caller>,
    /// ECS tasks, which get credentials from the ECS credentials endpoint.
    #[serde(rename = "task")]
    pub tasks: Vec<Task>,
    /// EKS pods, which get credentials from STS.
    #[serde(rename = "pod")]
    pub pods: Vec<Pod>,
    /// Buyers of SaaS products.
    #[serde(rename = "customer")]
    pub customers: Vec<Customer>,
    /// Registration tokens, with which buyers come to a seller's web site.
    #[serde(rename = "token")]
    pub tokens: Vec<Token>,
}

/// A product on AWS Marketplace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// The product code.
    pub code: String,
    /// Whether the buyer has a subscription.
    #[serde(default = "yes")]
    pub entitled: bool,
    /// The dimensions that MeterUsage takes.
    #[serde(default = "default_dimensions")]
    pub dimensions: Vec<String>,
    /// The regions in which it is offered; none for all.
    #[serde(default)]
    pub regions: Vec<String>,
    /// How the claims in signatures are spelled.
    #[serde(default)]
    pub claims: Claims,
    /// Whether the key version in signatures is text instead of a number.
    #[serde(default)]
    pub version_as_text: bool,
    /// Whether a dry run that is allowed succeeds, instead of answering DryRunOperation.
    #[serde(default)]
    pub dry_run_succeeds: bool,
    /// The key versions.
    #[serde(default = "default_keys", rename = "key")]
    pub keys: Vec<Key>,
}

/// AWS's pages spell the claims in two ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Claims {
    /// `productCode`.
    #[default]
    Camel,
    /// `ProductCode`.
    Pascal,
}

/// A version of a product's signing key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// From 1 on.
    pub version: u32,
    /// Length of a key that is generated at start, from 1024.
    #[serde(default = "default_bits")]
    pub bits: usize,
    /// A PKCS #8 PEM file with the private key, instead of a generated one.
    #[serde(default)]
    pub private_key_file: Option<PathBuf>,
    /// When the version was replaced; RegisterUsage says so.
    #[serde(default)]
    pub rotated_at: Option<Timestamp>,
}

/// A caller with fixed credentials.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// The task or pod that calls with it: what the hour rule counts by.
    pub identity: String,
    /// Where the caller runs.
    #[serde(default)]
    pub platform: Platform,
    /// When it started; usage from before is refused. Without it, any time counts.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// What its role allows, `RegisterUsage` and the like; none for everything.
    #[serde(default)]
    pub actions: Vec<String>,
}

/// Where a caller runs; RegisterUsage takes only the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// An ECS task with its task role.
    Ecs,
    /// An EKS pod with IRSA.
    #[default]
    Eks,
    /// An EC2 instance's role.
    Instance,
}

/// An ECS task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The last part of its ARN, and its name in the simulator's paths.
    pub id: String,
    /// When it started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
}

/// An EKS pod with a service account that may assume a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// What AWS tells it apart by.
    pub identity: String,
    /// The content of its web identity token file.
    pub token: String,
    /// The role that the token may assume.
    pub role_arn: String,
    /// When it started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
}

/// A buyer of a SaaS product.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// What the simulator's set-up and account call it; AWS does not know it.
    pub id: String,
    /// The product.
    pub product_code: String,
    /// CustomerIdentifier; customers of new integrations have none.
    #[serde(default)]
    pub customer_identifier: Option<String>,
    /// CustomerAWSAccountId.
    #[serde(default)]
    pub customer_aws_account_id: Option<String>,
    /// One for each agreement.
    #[serde(default, rename = "license")]
    pub licenses: Vec<License>,
    /// Whether it may use the product; false also refuses what its licenses would allow, as for a suspended account.
    #[serde(default = "yes")]
    pub subscribed: bool,
    /// When it unsubscribed: usage is taken for one more hour.
    #[serde(default)]
    pub unsubscribed_at: Option<Timestamp>,
}

/// A license that a customer was granted with an agreement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct License {
    /// LicenseArn.
    pub arn: String,
    /// The agreement's id, which ResolveCustomer tells.
    #[serde(default)]
    pub agreement_id: Option<String>,
    /// Whether the agreement is in force.
    #[serde(default = "yes")]
    pub subscribed: bool,
    /// When it ended: usage is taken for one more hour.
    #[serde(default)]
    pub unsubscribed_at: Option<Timestamp>,
    /// The license is active from here on.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    /// The license is active up to here.
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
}

/// A registration token. It can be resolved again and again until it expires.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// RegistrationToken.
    pub token: String,
    /// The customer's `id`.
    pub customer: String,
    /// The license of which it tells; without it the customer's first.
    #[serde(default)]
    pub license_arn: Option<String>,
    /// Without it four hours after the simulator heard of it, as AWS gives a buyer.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Members that ResolveCustomer answers besides those of the service model, so that passing them on can be tested;
    /// those in `Metadata` join AgreementId.
    #[serde(default)]
    pub further_members: Map<String, Value>,
}

/// Id of the default caller's key.
pub const DEFAULT_ACCESS_KEY_ID: &str = "SIMULATORKEY1";
/// Secret of the default caller's key.
pub const DEFAULT_SECRET_ACCESS_KEY: &str = "simulator-secret-1";
/// The default product's code.
pub const DEFAULT_PRODUCT: &str = "prod-demo";

impl Config {
    /// Reads a TOML text; unknown keys are errors.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The length of a metering hour.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms)
    }
}

impl Product {
    /// An entitled product with one generated key.
    pub fn new(code: &str) -> Self {
        Self {
            code: code.to_owned(),
            entitled: true,
            dimensions: default_dimensions(),
            regions: Vec::new(),
            claims: Claims::default(),
            version_as_text: false,
            dry_run_succeeds: false,
            keys: default_keys(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8430".to_owned(),
            region: "us-east-1".to_owned(),
            period_ms: 3_600_000,
            seed: 1,
            products: vec![Product::new(DEFAULT_PRODUCT)],
            callers: vec![Caller {
                access_key_id: DEFAULT_ACCESS_KEY_ID.to_owned(),
                secret_access_key: DEFAULT_SECRET_ACCESS_KEY.to_owned(),
                identity: "task-1".to_owned(),
                platform: Platform::Eks,
                started_at: None,
                actions: Vec::new(),
            }],
            tasks: Vec::new(),
            pods: Vec::new(),
            customers: Vec::new(),
            tokens: Vec::new(),
        }
    }
}

fn yes() -> bool {
    true
}

fn default_bits() -> usize {
    2048
}

fn default_dimensions() -> Vec<String> {
    vec!["requests".to_owned()]
}

fn default_keys() -> Vec<Key> {
    vec![Key {
        version: 1,
        bits: default_bits(),
        private_key_file: None,
        rotated_at: None,
    }]
}
