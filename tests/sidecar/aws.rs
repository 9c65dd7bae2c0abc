//! The simulator as the tests use it: one for each test, in a thread of its own.

use std::sync::LazyLock;
use std::time::Duration;

use marketplace_simulator::batch::SaasRecord;
use marketplace_simulator::config::{
    Caller, Claims, Config, Customer, Key, Platform, Pod, Product, Task, Token,
};
use marketplace_simulator::fault::{Fault, Kind};
use marketplace_simulator::meter::Record;
use marketplace_simulator::token::Attack;
use marketplace_simulator::world::{Call, TaskMetadataFault};
use marketplace_simulator::{Simulator, config};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::pod;

pub const PRODUCT: &str = config::DEFAULT_PRODUCT;
pub const ACCESS_KEY_ID: &str = config::DEFAULT_ACCESS_KEY_ID;
pub const SECRET_ACCESS_KEY: &str = config::DEFAULT_SECRET_ACCESS_KEY;
pub const REGION: &str = "us-east-1";

/// Every forged signature that the simulator can answer with.
pub const SIGNATURE_ATTACKS: [&str; 15] = [
    "missing",
    "alg-none",
    "hs256",
    "rs256",
    "other-key",
    "truncated",
    "trailing-data",
    "duplicate-claims",
    "conflicting-spellings",
    "other-nonce",
    "other-product",
    "other-version",
    "no-salt",
    "short-salt",
    "long-salt",
];

/// One thread serves the simulators of all tests.
static RUNTIME: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
});

pub struct Aws {
    simulator: Simulator,
}

/// What an ECS agent tells a task's containers.
pub struct EcsTask {
    pub arn: String,
    pub metadata_uri: String,
    pub credentials_uri: String,
}

/// What EKS gives a pod whose service account may assume a role.
pub struct IrsaPod {
    pub token: String,
    pub role_arn: String,
}

/// A call as the simulator logged it.
pub struct Logged(Call);

impl Logged {
    pub fn identity(&self) -> &str {
        self.0.identity.as_deref().unwrap_or("unknown")
    }

    pub fn request(&self) -> &Value {
        &self.0.request
    }

    pub fn public_key_version(&self) -> u64 {
        self.0.request["PublicKeyVersion"].as_u64().unwrap()
    }
}

impl Aws {
    /// An entitled buyer of one product; its key has 1024 bits, as AWS's sample has.
    pub fn start() -> Self {
        Self::with_hours_of(Duration::from_hours(1), &["requests"])
    }

    /// The same with shorter metering hours and these dimensions.
    pub fn with_hours_of(period: Duration, dimensions: &[&str]) -> Self {
        let mut product = product(PRODUCT);
        product.dimensions = dimensions.iter().map(|name| (*name).to_owned()).collect();
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            period_ms: u64::try_from(period.as_millis()).unwrap(),
            products: vec![product],
            ..Config::default()
        };
        let simulator = RUNTIME.block_on(Simulator::start(&config)).unwrap();
        Self { simulator }
    }

    pub fn url(&self) -> String {
        self.simulator.url()
    }

    pub fn public_key(&self, version: u32) -> String {
        self.public_key_of(PRODUCT, version)
    }

    pub fn public_key_of(&self, product: &str, version: u32) -> String {
        self.simulator
            .world()
            .public_key(product, version)
            .unwrap()
            .to_owned()
    }

    pub fn add_product(&self, code: &str) {
        self.simulator.world().put_product(product(code)).unwrap();
    }

    pub fn set_entitled(&self, entitled: bool) {
        self.change(|product| product.entitled = entitled);
    }

    pub fn rotate_key(&self, version: u32, at: &str) {
        self.change(|product| {
            product
                .keys
                .iter_mut()
                .filter(|key| key.version == version)
                .for_each(|key| key.rotated_at = Some(at.parse().unwrap()));
        });
    }

    pub fn spell_claims(&self, spelling: &str, version_as_text: bool) {
        let claims: Claims = serde_json::from_value(json!(spelling)).unwrap();
        self.change(|product| {
            product.claims = claims;
            product.version_as_text = version_as_text;
        });
    }

    pub fn calls(&self, operation: &str) -> Vec<Logged> {
        let world = self.simulator.world();
        world
            .calls()
            .filter(|call| call.operation == operation)
            .cloned()
            .map(Logged)
            .collect()
    }

    pub fn all_calls(&self) -> Vec<Logged> {
        self.simulator
            .world()
            .calls()
            .cloned()
            .map(Logged)
            .collect()
    }

    /// How many calls of `operation` have come.
    pub fn count(&self, operation: &str) -> usize {
        let world = self.simulator.world();
        world
            .calls()
            .filter(|call| call.operation == operation)
            .count()
    }

    /// What is billed.
    pub fn records(&self) -> Vec<Record> {
        self.simulator.world().ledger.records().cloned().collect()
    }

    /// MeterUsage requests as they came, without those that a fault turned away.
    pub fn requests(&self) -> Vec<Value> {
        let calls = self.calls("MeterUsage");
        calls.into_iter().map(|call| call.0.request).collect()
    }

    /// Polls until `count` records are billed.
    pub fn bills(&self, count: usize) -> Vec<Record> {
        pod::poll(|| Some(self.records()).filter(|records| records.len() >= count))
            .unwrap_or_else(|| panic!("never {count} records; there are {:?}", self.records()))
    }

    /// What is billed of `dimension`, in millionths.
    pub fn billed(&self, dimension: &str) -> u128 {
        let records = self.records();
        let of_dimension = records
            .iter()
            .filter(|record| record.dimension == dimension);
        of_dimension.map(|record| record.quantity.0).sum()
    }

    /// A customer of the product, or another state of one, as `PUT /simulator/customers` takes it.
    pub fn put_customer(&self, customer: Value) {
        let customer: Customer = serde_json::from_value(customer).unwrap();
        self.simulator.world().put_customer(customer).unwrap();
    }

    /// A registration token, as `PUT /simulator/tokens` takes it.
    pub fn put_token(&self, token: Value) {
        let token: Token = serde_json::from_value(token).unwrap();
        self.simulator.world().put_token(token).unwrap();
    }

    /// What is billed to customers.
    pub fn saas_records(&self) -> Vec<SaasRecord> {
        self.simulator.world().saas.records().cloned().collect()
    }

    /// Answers `operation` with the exception `error`, `count` times.
    pub fn refuse(&self, operation: &str, error: &str, count: u64) {
        self.add_fault(
            json!({"operation": operation, "kind": "error", "error": error, "count": count}),
        );
    }

    /// Lets `kind` strike `operation`, `count` times.
    pub fn fault(&self, operation: &str, kind: &str, count: u64) {
        self.add_fault(json!({"operation": operation, "kind": kind, "count": count}));
    }

    pub fn delay(&self, operation: &str, delay: Duration, count: u64) {
        let millis = u64::try_from(delay.as_millis()).unwrap();
        self.add_fault(
            json!({"operation": operation, "kind": "delay", "delay_ms": millis, "count": count}),
        );
    }

    /// Answers RegisterUsage with a signature that must not be believed, from now on.
    pub fn attack(&self, attack: &str) {
        let attack: Attack = serde_json::from_value(json!(attack)).unwrap();
        let fault = Fault {
            operation: Some("RegisterUsage".to_owned()),
            attack: Some(attack),
            ..Fault::new(Kind::Attack)
        };
        self.simulator.world().faults.add(fault).unwrap();
    }

    /// Closes every connection unanswered from now on.
    pub fn outage(&self) {
        self.add_fault(json!({"kind": "connection-reset"}));
    }

    /// Puts other faults in force in one step: no call comes between.
    pub fn replace_faults(&self, faults: &[Value]) {
        let mut world = self.simulator.world();
        world.faults.clear();
        for fault in faults {
            let fault: Fault = serde_json::from_value(fault.clone()).unwrap();
            world.faults.add(fault).unwrap();
        }
    }

    /// Another task or pod, with credentials of its own: access key id and secret.
    pub fn add_caller(&self, identity: &str) -> (String, String) {
        let caller = Caller {
            access_key_id: format!("KEYOF{identity}"),
            secret_access_key: format!("secret of {identity}"),
            identity: identity.to_owned(),
            platform: Platform::Eks,
            started_at: None,
            actions: Vec::new(),
        };
        self.simulator.world().put_caller(caller.clone());
        (caller.access_key_id, caller.secret_access_key)
    }

    pub fn let_dry_runs_succeed(&self) {
        self.change(|product| product.dry_run_succeeds = true);
    }

    pub fn clear_faults(&self) {
        self.simulator.world().faults.clear();
    }

    pub fn add_task(&self, id: &str) -> EcsTask {
        let mut world = self.simulator.world();
        world.put_task(Task {
            id: id.to_owned(),
            started_at: None,
        });
        EcsTask {
            arn: world.task_arn(id),
            metadata_uri: format!("{}/ecs/v4/{id}", self.url()),
            credentials_uri: format!("{}/ecs/credentials/{id}", self.url()),
        }
    }

    pub fn add_pod(&self, identity: &str) -> IrsaPod {
        let pod = Pod {
            identity: identity.to_owned(),
            token: format!("web-identity-token-of-{identity}"),
            role_arn: "arn:aws:iam::111122223333:role/metering".to_owned(),
            started_at: None,
        };
        self.simulator.world().put_pod(pod.clone());
        IrsaPod {
            token: pod.token,
            role_arn: pod.role_arn,
        }
    }

    pub fn break_task_metadata(&self, fault: &str) {
        let fault: TaskMetadataFault = serde_json::from_value(json!(fault)).unwrap();
        self.simulator.world().task_metadata = fault;
    }

    /// Puts a fault in force, as `POST /simulator/faults` takes it.
    pub fn add_fault(&self, fault: Value) {
        let fault: Fault = serde_json::from_value(fault).unwrap();
        self.simulator.world().faults.add(fault).unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Product)) {
        change(self.simulator.world().product_mut(PRODUCT).unwrap());
    }
}

fn product(code: &str) -> Product {
    let key = Key {
        version: 1,
        bits: 1024,
        private_key_file: None,
        rotated_at: None,
    };
    Product {
        keys: vec![key],
        ..Product::new(code)
    }
}
