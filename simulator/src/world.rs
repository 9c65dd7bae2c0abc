//! All state of the simulated AWS, behind one lock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::batch::SaasLedger;
use crate::config::{Caller, Config, Customer, Platform, Pod, Product, Task, Token};
use crate::customers::{CustomerError, Customers};
use crate::fault::Faults;
use crate::meter::Ledger;
use crate::server::StartError;
use crate::token::{KeyError, SigningKey};

/// What the simulated AWS knows.
#[derive(Debug)]
pub struct World {
    /// The region in which everything runs.
    pub region: String,
    /// The length of a metering hour.
    pub period: Duration,
    /// Ahead of (or behind) the machine's clock by this.
    pub clock_offset: SignedDuration,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// How the ECS agent answers.
    pub task_metadata: TaskMetadataFault,
    /// What was metered in buyers' accounts, by MeterUsage.
    pub ledger: Ledger,
    /// What was metered for buyers of SaaS products, by BatchMeterUsage.
    pub saas: SaasLedger,
    pub(crate) customers: Customers,
    pub(crate) products: BTreeMap<String, ProductState>,
    pub(crate) credentials: HashMap<String, Credential>,
    pub(crate) tasks: BTreeMap<String, Task>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) registered: HashSet<(String, String)>,
    calls: VecDeque<Call>,
    calls_seen: u64,
    issued: u64,
}

/// A product and its keys.
#[derive(Clone, Debug)]
pub(crate) struct ProductState {
    pub(crate) config: Product,
    pub(crate) keys: BTreeMap<u32, SigningKey>,
}

/// Credentials, and who calls with them.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    pub(crate) secret: String,
    pub(crate) session_token: Option<String>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) identity: String,
    pub(crate) platform: Platform,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) actions: Vec<String>,
}

/// A call that came in, as the log of calls shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Counts from 1.
    pub sequence: u64,
    /// When it came.
    pub at: Timestamp,
    /// The operation.
    pub operation: String,
    /// Whose credentials signed it, once that is known.
    pub identity: Option<String>,
    /// The region of the signature.
    pub region: Option<String>,
    /// The request's members as sent.
    pub request: Value,
    /// `Success`, or the exception's name; a fault that hides the answer does not change it.
    pub outcome: String,
}

/// How the ECS agent answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskMetadataFault {
    /// As it should.
    #[default]
    None,
    /// Something that is not JSON.
    BadJson,
    /// JSON without TaskARN.
    NoTaskArn,
    /// A TaskARN that is none.
    WrongArn,
    /// HTTP 500.
    Error,
    /// A page of HTML.
    Html,
    /// Two megabytes.
    Huge,
}

/// Temporary credentials as they are handed out.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) access_key_id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    pub(crate) expires_at: Timestamp,
}

const CALLS_MAX: usize = 100_000;
const LIFE_OF_CREDENTIALS: SignedDuration = SignedDuration::from_hours(1);

impl World {
    /// A world as `config` describes it; generates the keys that are not given.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let mut world = Self {
            region: config.region.clone(),
            period: config.period(),
            clock_offset: SignedDuration::ZERO,
            faults: Faults::new(config.seed),
            task_metadata: TaskMetadataFault::None,
            ledger: Ledger::default(),
            saas: SaasLedger::default(),
            customers: Customers::default(),
            products: BTreeMap::new(),
            credentials: HashMap::new(),
            tasks: BTreeMap::new(),
            pods: config.pods.clone(),
            registered: HashSet::new(),
            calls: VecDeque::new(),
            calls_seen: 0,
            issued: 0,
        };
        for product in &config.products {
            world.put_product(product.clone())?;
        }
        for customer in &config.customers {
            world.put_customer(customer.clone())?;
        }
        for token in &config.tokens {
            world.put_token(token.clone())?;
        }
        config
            .callers
            .iter()
            .for_each(|caller| world.put_caller(caller.clone()));
        config
            .tasks
            .iter()
            .for_each(|task| world.put_task(task.clone()));
        Ok(world)
    }

    /// AWS's present time.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
            .checked_add(self.clock_offset)
            .unwrap_or(Timestamp::MAX)
    }

    /// Adds a product or replaces it; keys that are still asked for with the same length stay.
    pub fn put_product(&mut self, config: Product) -> Result<(), KeyError> {
        let before = self.products.remove(&config.code);
        let mut keys = BTreeMap::new();
        for key in &config.keys {
            let kept = before
                .as_ref()
                .filter(|state| {
                    state.config.keys.iter().any(|k| {
                        k.version == key.version
                            && k.bits == key.bits
                            && k.private_key_file == key.private_key_file
                    })
                })
                .and_then(|state| state.keys.get(&key.version).cloned());
            let signing = match kept {
                Some(signing) => signing,
                None => SigningKey::new(key)?,
            };
            keys.insert(key.version, signing);
        }
        self.products
            .insert(config.code.clone(), ProductState { config, keys });
        Ok(())
    }

    /// A product's set-up.
    pub fn product(&self, code: &str) -> Option<&Product> {
        self.products.get(code).map(|state| &state.config)
    }

    /// A product's set-up, to be changed; keys change through [`World::put_product`] alone.
    pub fn product_mut(&mut self, code: &str) -> Option<&mut Product> {
        self.products.get_mut(code).map(|state| &mut state.config)
    }

    /// Every product's code.
    pub fn product_codes(&self) -> Vec<String> {
        self.products.keys().cloned().collect()
    }

    /// A key's public half as SPKI PEM.
    pub fn public_key(&self, code: &str, version: u32) -> Option<&str> {
        self.products
            .get(code)?
            .keys
            .get(&version)
            .map(|key| key.public_pem.as_str())
    }

    /// Adds a buyer of a SaaS product, or replaces it.
    pub fn put_customer(&mut self, customer: Customer) -> Result<(), CustomerError> {
        if !self.products.contains_key(&customer.product_code) {
            return Err(CustomerError::NoSuchProduct(customer.product_code));
        }
        self.customers.put(customer)
    }

    /// A buyer of a SaaS product, by its `id`: to be changed and put again.
    pub fn customer(&self, id: &str) -> Option<&Customer> {
        self.customers.find(id)
    }

    /// Adds a registration token, or replaces it.
    pub fn put_token(&mut self, token: Token) -> Result<(), CustomerError> {
        let now = self.now();
        self.customers.put_token(token, now)
    }

    /// Adds a caller with fixed credentials, or replaces it.
    pub fn put_caller(&mut self, caller: Caller) {
        let credential = Credential {
            secret: caller.secret_access_key,
            session_token: None,
            expires_at: None,
            identity: caller.identity,
            platform: caller.platform,
            started_at: caller.started_at,
            actions: caller.actions,
        };
        self.credentials.insert(caller.access_key_id, credential);
    }

    /// Adds an ECS task.
    pub fn put_task(&mut self, task: Task) {
        self.tasks.insert(task.id.clone(), task);
    }

    /// Adds an EKS pod.
    pub fn put_pod(&mut self, pod: Pod) {
        self.pods.push(pod);
    }

    /// The ARN of a task.
    pub fn task_arn(&self, id: &str) -> String {
        format!(
            "arn:aws:ecs:{}:111122223333:task/simulator/{id}",
            self.region
        )
    }

    /// The latest calls, the oldest first.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&mut self) {
        self.calls.clear();
    }

    pub(crate) fn log_call(&mut self, mut call: Call) {
        self.calls_seen += 1;
        call.sequence = self.calls_seen;
        if self.calls.len() == CALLS_MAX {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// Hands out temporary credentials.
    pub(crate) fn issue(
        &mut self,
        identity: String,
        platform: Platform,
        started_at: Option<Timestamp>,
    ) -> Issued {
        self.issued += 1;
        let issued = Issued {
            access_key_id: format!("SIMULATORTEMP{}", self.issued),
            secret: format!("simulator-temporary-secret-{}", self.issued),
            token: format!("simulator-session-token-{}", self.issued),
            expires_at: self
                .now()
                .checked_add(LIFE_OF_CREDENTIALS)
                .unwrap_or(Timestamp::MAX),
        };
        let credential = Credential {
            secret: issued.secret.clone(),
            session_token: Some(issued.token.clone()),
            expires_at: Some(issued.expires_at),
            identity,
            platform,
            started_at,
            actions: Vec::new(),
        };
        self.credentials
            .insert(issued.access_key_id.clone(), credential);
        issued
    }
}
