//! The customers of a SaaS product, as `BatchMeterUsage` names them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whom a record is billed to. AWS keeps one record per hour and dimension for each of these, whoever sends it
/// (API reference, UsageRecord).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Customer {
    /// `CustomerIdentifier`, with the request's `ProductCode`: integrations from before concurrent agreements.
    Identifier(Box<str>),
    /// `CustomerAWSAccountId`, with the request's `ProductCode`.
    Account(Box<str>),
    /// `CustomerAWSAccountId` and `LicenseArn`, without a `ProductCode`: integrations for concurrent agreements.
    License {
        /// `CustomerAWSAccountId`.
        account: Box<str>,
        /// `LicenseArn`.
        license: Box<str>,
    },
}

/// The number that a ledger gives a customer when it first hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CustomerNumber(pub u32);

/// How a customer is named. AWS bills a customer that is named in two ways within an hour once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// By `CustomerIdentifier` and `ProductCode`.
    Identifier,
    /// By `CustomerAWSAccountId` and `ProductCode`.
    Account,
    /// By `CustomerAWSAccountId` and `LicenseArn`.
    License,
}

/// Why members of a request name no customer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomerError {
    /// None of them is there.
    #[error(
        "it names no customer: give CustomerAWSAccountId and LicenseArn, or for an integration from before concurrent \
         agreements CustomerIdentifier and the request's ProductCode"
    )]
    Missing,
    /// Both are there, and they may be two different customers.
    #[error("CustomerIdentifier and CustomerAWSAccountId exclude each other")]
    Both,
    /// A license belongs to an account.
    #[error("LicenseArn needs CustomerAWSAccountId")]
    LicenseWithoutAccount,
    /// Longer than AWS takes.
    #[error("CustomerIdentifier has {0} characters; AWS takes 1 to 255")]
    Identifier(usize),
    /// Not the number of an account.
    #[error("CustomerAWSAccountId is {0:?}; it has 1 to 255 digits and nothing else")]
    Account(String),
    /// Not an ARN.
    #[error(
        "LicenseArn is {0:?}; it is an ARN as in arn:aws:license-manager::123456789012:license:l-..."
    )]
    License(String),
}

const NAME_CHARS_MAX: usize = 255;
/// Service model, LicenseArn: the prefix, three parts and a resource.
const ARN_PART_CHARS_MAX: usize = 63;
const ARN_RESOURCE_CHARS_MAX: usize = 1024;

impl Customer {
    /// The customer that the members of a UsageRecord, or of ResolveCustomer's answer, name.
    pub fn new(
        identifier: Option<&str>,
        account: Option<&str>,
        license: Option<&str>,
    ) -> Result<Self, CustomerError> {
        match (identifier, account, license) {
            (None, None, None) => Err(CustomerError::Missing),
            (Some(_), Some(_), _) => Err(CustomerError::Both),
            (_, None, Some(_)) => Err(CustomerError::LicenseWithoutAccount),
            (Some(identifier), None, None) => {
                let length = identifier.chars().count();
                if length == 0 || length > NAME_CHARS_MAX {
                    return Err(CustomerError::Identifier(length));
                }
                Ok(Self::Identifier(identifier.into()))
            }
            (None, Some(account), license) => {
                let account = checked_account(account)?;
                match license {
                    None => Ok(Self::Account(account)),
                    Some(license) if is_license_arn(license) => Ok(Self::License {
                        account,
                        license: license.into(),
                    }),
                    Some(license) => Err(CustomerError::License(shown(license))),
                }
            }
        }
    }

    /// How it is named.
    pub fn way(&self) -> Way {
        match self {
            Self::Identifier(_) => Way::Identifier,
            Self::Account(_) => Way::Account,
            Self::License { .. } => Way::License,
        }
    }

    /// `CustomerIdentifier`.
    pub fn identifier(&self) -> Option<&str> {
        match self {
            Self::Identifier(identifier) => Some(identifier),
            Self::Account(_) | Self::License { .. } => None,
        }
    }

    /// `CustomerAWSAccountId`.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Identifier(_) => None,
            Self::Account(account) | Self::License { account, .. } => Some(account),
        }
    }

    /// `LicenseArn`.
    pub fn license(&self) -> Option<&str> {
        match self {
            Self::Identifier(_) | Self::Account(_) => None,
            Self::License { license, .. } => Some(license),
        }
    }
}

impl fmt::Display for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identifier(name) | Self::Account(name) => f.write_str(name),
            Self::License { account, license } => write!(f, "{account} {license}"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identifier => "CustomerIdentifier and ProductCode",
            Self::Account => "CustomerAWSAccountId and ProductCode",
            Self::License => "CustomerAWSAccountId and LicenseArn",
        })
    }
}

/// An account's number, checked against AWS's pattern.
pub fn checked_account(account: &str) -> Result<Box<str>, CustomerError> {
    let digits = (1..=NAME_CHARS_MAX).contains(&account.len())
        && account.bytes().all(|b| b.is_ascii_digit());
    if digits {
        Ok(account.into())
    } else {
        Err(CustomerError::Account(shown(account)))
    }
}

fn is_license_arn(text: &str) -> bool {
    let part = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_/.-".contains(&b))
    };
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account, resource) =
        (next(), next(), next(), next(), next(), next());
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    arn == "arn"
        && partition
            .strip_prefix("aws")
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-'))
        && begins(service)
        && begins(resource)
        && [service, region, account]
            .iter()
            .all(|text| text.len() <= ARN_PART_CHARS_MAX && part(text))
        && resource.len() <= ARN_RESOURCE_CHARS_MAX
        && resource
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":_/+=,@.-".contains(&b))
}

fn shown(text: &str) -> String {
    const CHARS_SHOWN: usize = 100;
    text.chars().take(CHARS_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:license-manager::123456789012:license:l-0123456789abcdef";

    #[test]
    fn the_three_ways_to_name_a_customer_are_told_apart() {
        let way = |i, a, l| Customer::new(i, a, l).map(|customer| customer.way());
        assert_eq!(way(Some("c-1"), None, None), Ok(Way::Identifier));
        assert_eq!(way(None, Some("123456789012"), None), Ok(Way::Account));
        assert_eq!(way(None, Some("123456789012"), Some(ARN)), Ok(Way::License));
        assert_eq!(way(None, None, None), Err(CustomerError::Missing));
        assert_eq!(way(Some("c-1"), Some("1"), None), Err(CustomerError::Both));
        assert_eq!(
            way(Some("c-1"), None, Some(ARN)),
            Err(CustomerError::LicenseWithoutAccount)
        );
    }

    #[test]
    fn names_outside_the_service_model_are_refused() {
        assert!(Customer::new(Some(""), None, None).is_err());
        assert!(Customer::new(Some(&"x".repeat(256)), None, None).is_err());
        for account in ["", "12a", "１２", &"1".repeat(256)] {
            assert!(
                Customer::new(None, Some(account), None).is_err(),
                "{account}"
            );
        }
        for license in [
            "",
            "arn",
            "l-1",
            "arn:aws:license-manager::1:",
            "arn:gcp:license-manager::1:license:l-1",
            "arn:aws:license manager::1:license:l-1",
            "arn:aws:license-manager::1:license:l 1",
        ] {
            assert!(
                Customer::new(None, Some("1"), Some(license)).is_err(),
                "{license}"
            );
        }
        let gov = "arn:aws-us-gov:license-manager:us-gov-west-1:1:license:l-1";
        assert!(Customer::new(None, Some("1"), Some(gov)).is_ok());
    }
}
