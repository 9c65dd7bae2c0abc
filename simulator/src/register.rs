//! RegisterUsage.

use serde_json::{Map, Value, json};

use crate::config::{Platform, Product};
use crate::model::{NONCE, PRODUCT_CODE, REGISTER_USAGE};
use crate::server::Caller;
use crate::token::{Attack, Statement};
use crate::wire::{AwsError, integer, members, required, text};
use crate::world::{ProductState, World};

/// Answers RegisterUsage; with `attack`, a signature that must not be believed.
pub(crate) fn register_usage(
    world: &mut World,
    caller: &Caller,
    body: &[u8],
    attack: Option<Attack>,
) -> Result<Value, AwsError> {
    let request = members(body, REGISTER_USAGE.input)?;
    let code = required(text(&request, "ProductCode")?, "ProductCode")?;
    PRODUCT_CODE.check(code)?;
    let version = required(integer(&request, "PublicKeyVersion")?, "PublicKeyVersion")?;
    let version = u32::try_from(version)
        .ok()
        .filter(|version| *version >= 1)
        .ok_or_else(|| AwsError::validation("PublicKeyVersion has to be at least 1"))?;
    let nonce = text(&request, "Nonce")?;
    nonce.map_or(Ok(()), |nonce| NONCE.check(nonce))?;

    if caller.platform == Platform::Instance {
        return Err(AwsError::new(
            "PlatformNotSupportedException",
            "RegisterUsage works in ECS tasks and EKS pods only",
        ));
    }
    check_region(world, caller)?;
    let product = find_product(world, code, caller)?;
    let key = product.keys.get(&version).ok_or_else(|| {
        AwsError::new(
            "InvalidPublicKeyVersionException",
            format!("there is no public key version {version}"),
        )
    })?;
    let registration = (caller.identity.clone(), code.to_owned());
    // AWS: calls after the first from the same task or pod succeed even if the buyer has unsubscribed.
    if !product.config.entitled && !world.registered.contains(&registration) {
        return Err(AwsError::new(
            "CustomerNotEntitledException",
            "the buyer has no subscription to the product",
        ));
    }
    let statement = Statement {
        product_code: code,
        key_version: version,
        nonce,
        issued_at: world.now().as_second(),
        claims: product.config.claims,
        version_as_text: product.config.version_as_text,
    };
    let signature = match attack {
        None => Some(key.sign(&statement)),
        Some(attack) => key.forge(attack, &statement),
    };
    let mut answer = Map::new();
    if let Some(signature) = signature {
        answer.insert("Signature".to_owned(), json!(signature));
    }
    let rotated_at = product
        .config
        .keys
        .iter()
        .find(|key| key.version == version)
        .and_then(|key| key.rotated_at);
    if let Some(at) = rotated_at {
        answer.insert(
            "PublicKeyRotationTimestamp".to_owned(),
            json!(at.as_second()),
        );
    }
    world.registered.insert(registration);
    Ok(Value::Object(answer))
}

/// The call has to go to the region in which the caller runs.
fn check_region(world: &World, caller: &Caller) -> Result<(), AwsError> {
    if caller.region == world.region {
        return Ok(());
    }
    Err(AwsError::new(
        "InvalidRegionException",
        format!(
            "the call came to {}, the caller runs in {}",
            caller.region, world.region
        ),
    ))
}

/// The product, where it is offered.
pub(crate) fn find_product<'a>(
    world: &'a World,
    code: &str,
    caller: &Caller,
) -> Result<&'a ProductState, AwsError> {
    let product = world.products.get(code).ok_or_else(|| {
        AwsError::new(
            "InvalidProductCodeException",
            format!("there is no product {code:?}"),
        )
    })?;
    let regions = &product.config.regions;
    if regions.is_empty() || regions.contains(&caller.region) {
        Ok(product)
    } else {
        Err(AwsError::new(
            "DisabledApiException",
            format!("the product is not offered in {}", caller.region),
        ))
    }
}

/// Refuses a dimension that the product does not have.
pub(crate) fn check_dimension(product: &Product, dimension: &str) -> Result<(), AwsError> {
    if product.dimensions.iter().any(|known| known == dimension) {
        return Ok(());
    }
    let message = format!("the product has no dimension {dimension:?}");
    Err(AwsError::new("InvalidUsageDimensionException", message))
}
