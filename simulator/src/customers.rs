//! The buyers of SaaS products, their licenses and registration tokens, and ResolveCustomer.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::config::{Customer, License, Token};
use crate::model::{
    AGREEMENT_ID, CUSTOMER_AWS_ACCOUNT_ID, CUSTOMER_IDENTIFIER, METADATA, RESOLVE_CUSTOMER,
    is_license_arn,
};
use crate::register::find_product;
use crate::server::Caller;
use crate::wire::{AwsError, members, required, text};
use crate::world::World;

/// Every buyer, found by what a record says of it.
#[derive(Debug, Default)]
pub(crate) struct Customers {
    by_id: BTreeMap<String, Customer>,
    /// By product and CustomerIdentifier.
    by_identifier: BTreeMap<(String, String), String>,
    by_license: HashMap<String, String>,
    tokens: BTreeMap<String, Token>,
}

/// A customer or a registration token that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomerError {
    /// The product is not there.
    #[error("there is no product {0:?}; put it first")]
    NoSuchProduct(String),
    /// The customer of a token is not there.
    #[error("there is no customer with the id {0:?}; put it first")]
    NoSuchCustomer(String),
    /// The license of a token is not its customer's.
    #[error("the customer has no license {0:?}")]
    NoSuchLicense(String),
    /// A customer without any way to say who it is.
    #[error("customer {0:?} needs a customer_identifier or a customer_aws_account_id")]
    Nameless(String),
    /// A license needs an account.
    #[error("customer {0:?} has licenses, which need its customer_aws_account_id")]
    LicenseWithoutAccount(String),
    /// AWS would not know the one from the other.
    #[error("{what} {value:?} belongs to customer {owner:?} already")]
    Taken {
        /// What is taken.
        what: &'static str,
        /// Its value.
        value: String,
        /// The other customer's id.
        owner: String,
    },
    /// A member that breaks the model's constraints.
    #[error("{0}")]
    Malformed(String),
}

/// How long AWS lets a buyer's token be resolved.
const LIFE_OF_TOKENS: SignedDuration = SignedDuration::from_hours(4);

impl Customers {
    /// Every customer, by id.
    pub(crate) fn list(&self) -> impl Iterator<Item = &Customer> {
        self.by_id.values()
    }

    /// Every registration token.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Customer> {
        self.by_id.get(id)
    }

    /// The product's customer of that CustomerIdentifier.
    pub(crate) fn by_identifier(&self, product: &str, identifier: &str) -> Option<&Customer> {
        let key = (product.to_owned(), identifier.to_owned());
        self.by_id.get(self.by_identifier.get(&key)?)
    }

    /// Whether any product has a customer of that CustomerIdentifier.
    pub(crate) fn knows_identifier(&self, identifier: &str) -> bool {
        self.by_identifier
            .keys()
            .any(|(_, known)| known == identifier)
    }

    /// A license and whose it is.
    pub(crate) fn by_license(&self, arn: &str) -> Option<(&Customer, &License)> {
        let customer = self.by_id.get(self.by_license.get(arn)?)?;
        let license = customer
            .licenses
            .iter()
            .find(|license| license.arn == arn)?;
        Some((customer, license))
    }

    pub(crate) fn put(&mut self, customer: Customer) -> Result<(), CustomerError> {
        check(&customer)?;
        self.check_free(&customer)?;
        let id = customer.id.clone();
        if let Some(before) = self.by_id.remove(&id) {
            if let Some(identifier) = before.customer_identifier {
                self.by_identifier
                    .remove(&(before.product_code, identifier));
            }
            for license in before.licenses {
                self.by_license.remove(&license.arn);
            }
        }
        if let Some(identifier) = &customer.customer_identifier {
            let key = (customer.product_code.clone(), identifier.clone());
            self.by_identifier.insert(key, id.clone());
        }
        for license in &customer.licenses {
            self.by_license.insert(license.arn.clone(), id.clone());
        }
        self.by_id.insert(id, customer);
        Ok(())
    }

    /// Refuses an identifier or a license that another customer has.
    fn check_free(&self, customer: &Customer) -> Result<(), CustomerError> {
        let taken = |what, value: &str, owner: Option<&String>| match owner {
            Some(owner) if *owner != customer.id => Err(CustomerError::Taken {
                what,
                value: value.to_owned(),
                owner: owner.clone(),
            }),
            _ => Ok(()),
        };
        if let Some(identifier) = &customer.customer_identifier {
            let key = (customer.product_code.clone(), identifier.clone());
            taken(
                "customer_identifier",
                identifier,
                self.by_identifier.get(&key),
            )?;
        }
        for license in &customer.licenses {
            taken("license", &license.arn, self.by_license.get(&license.arn))?;
        }
        Ok(())
    }

    pub(crate) fn put_token(
        &mut self,
        mut token: Token,
        now: Timestamp,
    ) -> Result<(), CustomerError> {
        if token.token.is_empty() {
            return Err(CustomerError::Malformed("the token is empty".to_owned()));
        }
        let customer = self
            .find(&token.customer)
            .ok_or_else(|| CustomerError::NoSuchCustomer(token.customer.clone()))?;
        if let Some(arn) = &token.license_arn
            && !customer.licenses.iter().any(|license| license.arn == *arn)
        {
            return Err(CustomerError::NoSuchLicense(arn.clone()));
        }
        check_further(&token.further_members)?;
        if token.expires_at.is_none() {
            token.expires_at = Some(now.checked_add(LIFE_OF_TOKENS).unwrap_or(Timestamp::MAX));
        }
        self.tokens.insert(token.token.clone(), token);
        Ok(())
    }
}

/// Answers ResolveCustomer. A token can be resolved again until it expires. The name of the exception is also what AWS
/// answers to expired credentials; the message tells them apart.
pub(crate) fn resolve_customer(
    world: &World,
    caller: &Caller,
    body: &[u8],
) -> Result<Value, AwsError> {
    let request = members(body, RESOLVE_CUSTOMER.input)?;
    let token = required(text(&request, "RegistrationToken")?, "RegistrationToken")?;
    if token.is_empty() {
        return Err(AwsError::validation("RegistrationToken is empty"));
    }
    let invalid = || AwsError::new("InvalidTokenException", "the registration token is invalid");
    let token = world.customers.tokens.get(token).ok_or_else(invalid)?;
    let customer = world.customers.find(&token.customer).ok_or_else(invalid)?;
    find_product(world, &customer.product_code, caller)?;
    if token.expires_at.is_some_and(|end| world.now() >= end) {
        return Err(AwsError::new(
            "ExpiredTokenException",
            "the registration token has expired; the buyer has to come from AWS Marketplace again",
        ));
    }
    Ok(answer(customer, token))
}

/// Members that are not known are left out, not null.
fn answer(customer: &Customer, token: &Token) -> Value {
    let license = match &token.license_arn {
        Some(arn) => customer.licenses.iter().find(|license| license.arn == *arn),
        None => customer.licenses.first(),
    };
    let agreement = license.and_then(|license| license.agreement_id.as_ref());
    let mut answer = token.further_members.clone();
    let mut metadata = match answer.remove("Metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    if let Some(agreement) = agreement {
        metadata.insert("AgreementId".to_owned(), json!(agreement));
    }
    if !metadata.is_empty() {
        answer.insert("Metadata".to_owned(), Value::Object(metadata));
    }
    for (name, value) in [
        ("CustomerIdentifier", customer.customer_identifier.as_ref()),
        ("ProductCode", Some(&customer.product_code)),
        (
            "CustomerAWSAccountId",
            customer.customer_aws_account_id.as_ref(),
        ),
        ("LicenseArn", license.map(|license| &license.arn)),
    ] {
        if let Some(value) = value {
            answer.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(answer)
}

fn check(customer: &Customer) -> Result<(), CustomerError> {
    let malformed = |error: AwsError| CustomerError::Malformed(error.message);
    match (
        &customer.customer_identifier,
        &customer.customer_aws_account_id,
    ) {
        (None, None) => return Err(CustomerError::Nameless(customer.id.clone())),
        (_, None) if !customer.licenses.is_empty() => {
            return Err(CustomerError::LicenseWithoutAccount(customer.id.clone()));
        }
        (identifier, account) => {
            if let Some(identifier) = identifier {
                CUSTOMER_IDENTIFIER.check(identifier).map_err(malformed)?;
            }
            if let Some(account) = account {
                CUSTOMER_AWS_ACCOUNT_ID.check(account).map_err(malformed)?;
            }
        }
    }
    for (index, license) in customer.licenses.iter().enumerate() {
        if !is_license_arn(&license.arn) {
            return Err(CustomerError::Malformed(format!(
                "{:?} is no LicenseArn",
                license.arn
            )));
        }
        if customer.licenses[..index]
            .iter()
            .any(|other| other.arn == license.arn)
        {
            return Err(CustomerError::Malformed(format!(
                "license {:?} stands twice",
                license.arn
            )));
        }
        if let Some(agreement) = &license.agreement_id {
            AGREEMENT_ID.check(agreement).map_err(malformed)?;
        }
    }
    Ok(())
}

/// Further members are those that the service model does not have.
fn check_further(further: &Map<String, Value>) -> Result<(), CustomerError> {
    let known = |name: &str| RESOLVE_CUSTOMER.output.contains(&name) && name != "Metadata";
    let metadata = match further.get("Metadata") {
        None => &Map::new(),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => {
            return Err(CustomerError::Malformed(
                "Metadata among the further members has to be an object".to_owned(),
            ));
        }
    };
    let not_further = further.keys().find(|name| known(name)).or_else(|| {
        metadata
            .keys()
            .find(|name| METADATA.members.contains(&name.as_str()))
    });
    match not_further {
        Some(name) => Err(CustomerError::Malformed(format!(
            "{name} is a member of the service model, not a further one"
        ))),
        None => Ok(()),
    }
}
