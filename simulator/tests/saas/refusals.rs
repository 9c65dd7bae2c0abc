//! What fails a whole batch, with nothing of it counted.

use serde_json::{Value, json};

use crate::seller::{
    ACCOUNT, Failure, LICENSE, OTHER_ACCOUNT, OTHER_LICENSE, OTHER_PRODUCT, PRODUCT, REPLICA_1,
    SECOND_LICENSE, Seller, WEB_SITE, exception, legacy, licensed, seconds, statuses,
};

/// A good record stands before the bad one: it must not count either.
async fn refuses_legacy(seller: &Seller, changes: Value, name: &str) {
    let batch = [legacy(&json!({})), legacy(&changes)];
    let answer = seller.meter_legacy(&batch).await;
    assert_eq!(answer, Err(exception(name)), "{changes}");
    assert!(seller.billed().is_empty(), "{changes}");
}

async fn refuses_licensed(seller: &Seller, changes: Value, name: &str) {
    let batch = [licensed(&json!({})), licensed(&changes)];
    let answer = seller.meter_licensed(&batch).await;
    assert_eq!(answer, Err(exception(name)), "{changes}");
    assert!(seller.billed().is_empty(), "{changes}");
}

#[tokio::test]
async fn the_two_integrations_can_not_be_mixed() {
    let seller = Seller::start().await;
    let (product, customer, license) = (
        "InvalidProductCodeException",
        "InvalidCustomerIdentifierException",
        "InvalidLicenseException",
    );
    let no = Value::Null;
    for (with_product, identifier, account, arn, name) in [
        (
            true,
            json!("identifier-of-buyer"),
            json!(ACCOUNT),
            no.clone(),
            customer,
        ),
        (
            true,
            json!("identifier-of-buyer"),
            no.clone(),
            json!(LICENSE),
            customer,
        ),
        (true, no.clone(), json!(ACCOUNT), json!(LICENSE), product),
        (true, no.clone(), json!(ACCOUNT), no.clone(), product),
        (true, no.clone(), no.clone(), json!(LICENSE), product),
        (true, no.clone(), no.clone(), no.clone(), customer),
        (
            false,
            json!("identifier-of-buyer"),
            no.clone(),
            no.clone(),
            product,
        ),
        (
            false,
            json!("identifier-of-buyer"),
            json!(ACCOUNT),
            json!(LICENSE),
            customer,
        ),
        (
            false,
            json!("identifier-of-buyer"),
            no.clone(),
            json!(LICENSE),
            customer,
        ),
        (false, no.clone(), json!(ACCOUNT), no.clone(), license),
        (false, no.clone(), no.clone(), json!(LICENSE), customer),
        (false, no.clone(), no.clone(), no.clone(), customer),
    ] {
        let changes = json!({"CustomerIdentifier": identifier, "CustomerAWSAccountId": account, "LicenseArn": arn});
        if with_product {
            refuses_legacy(&seller, changes, name).await;
        } else {
            refuses_licensed(&seller, changes, name).await;
        }
    }
}

#[tokio::test]
async fn a_bad_license_fails_the_batch() {
    let seller = Seller::start().await;
    let name = "InvalidLicenseException";
    for changes in [
        json!({"LicenseArn": "l-1"}),
        json!({"LicenseArn": "arn:aws:license-manager::222233334444:license:l-9"}),
        json!({"LicenseArn": OTHER_LICENSE}),
        json!({"CustomerAWSAccountId": OTHER_ACCOUNT}),
        json!({"CustomerAWSAccountId": "999999999999"}),
    ] {
        refuses_licensed(&seller, changes, name).await;
    }
}

#[tokio::test]
async fn usage_outside_a_licenses_activation_period_fails_the_batch() {
    let seller = Seller::start().await;
    seller.change("buyer", |customer| {
        customer.licenses[1].starts_at = Some("2026-11-24T08:00:00Z".parse().unwrap());
        customer.licenses[1].ends_at = Some("2026-11-24T09:00:00Z".parse().unwrap());
    });
    let at = |time: &str| json!({"LicenseArn": SECOND_LICENSE, "Timestamp": seconds(time)});
    for time in ["2026-11-24T07:59:59Z", "2026-11-24T09:00:00Z"] {
        refuses_licensed(&seller, at(time), "InvalidLicenseException").await;
    }
    for time in ["2026-11-24T08:00:00Z", "2026-11-24T08:59:59Z"] {
        let answer = seller.meter_licensed(&[licensed(&at(time))]).await;
        assert_eq!(statuses(&answer.unwrap()), ["Success"], "{time}");
    }
}

#[tokio::test]
async fn a_request_is_for_one_product() {
    let seller = Seller::start().await;
    let other = json!({"CustomerAWSAccountId": OTHER_ACCOUNT, "LicenseArn": OTHER_LICENSE});
    refuses_licensed(&seller, other.clone(), "InvalidLicenseException").await;
    let answer = seller.meter_licensed(&[licensed(&other)]).await.unwrap();
    assert_eq!(statuses(&answer), ["Success"]);
}

#[tokio::test]
async fn an_unknown_product_dimension_or_customer_fails_the_batch() {
    let seller = Seller::start().await;
    for product in ["prod-nobody", ""] {
        let request = json!({"ProductCode": product, "UsageRecords": [legacy(&json!({}))]});
        let answer = seller.meter(request).await;
        assert_eq!(answer, Err(exception("InvalidProductCodeException")));
    }
    let dimension = json!({"Dimension": "Requests"});
    refuses_legacy(&seller, dimension.clone(), "InvalidUsageDimensionException").await;
    refuses_licensed(&seller, dimension, "InvalidUsageDimensionException").await;
    let nobody = json!({"CustomerIdentifier": "nobody"});
    refuses_legacy(&seller, nobody, "InvalidCustomerIdentifierException").await;
}

#[tokio::test]
async fn a_product_that_is_not_offered_in_a_region_has_the_api_disabled_there() {
    let seller = Seller::start().await;
    let product = |regions: &[&str]| {
        let mut world = seller.simulator.world();
        let product = world.product_mut(PRODUCT).unwrap();
        product.regions = regions.iter().map(ToString::to_string).collect();
    };
    product(&["eu-west-1"]);
    let disabled = Err(exception("DisabledApiException"));
    assert_eq!(seller.meter_legacy(&[legacy(&json!({}))]).await, disabled);
    assert_eq!(
        seller.meter_licensed(&[licensed(&json!({}))]).await,
        disabled
    );
    product(&["eu-west-1", "us-east-1"]);
    seller.meter_legacy(&[legacy(&json!({}))]).await.unwrap();
}

#[tokio::test]
async fn quantities_allocations_and_tags_keep_the_rules_of_meter_usage() {
    let seller = Seller::start().await;
    let part =
        |tags: Value| json!({"UsageAllocations": [{"AllocatedUsageQuantity": 17, "Tags": tags}]});
    let tag = json!({"Key": "k", "Value": "v"});
    let (validation, allocations, tags) = (
        "ValidationException",
        "InvalidUsageAllocationsException",
        "InvalidTagException",
    );
    for (changes, name) in [
        (json!({"Quantity": -1}), validation),
        (json!({"Quantity": 2_147_483_648_u64}), validation),
        (json!({"Quantity": 1.5}), "SerializationException"),
        (json!({"Quantity": "17"}), "SerializationException"),
        (json!({"QuantityAsDecimal": "17"}), validation),
        (
            json!({"Quantity": null, "QuantityAsDecimal": "017"}),
            validation,
        ),
        (
            json!({"Quantity": null, "QuantityAsDecimal": "1.0000001"}),
            validation,
        ),
        (json!({"UsageAllocations": []}), validation),
        (json!({"UsageAllocations": [{}]}), validation),
        (
            json!({"UsageAllocations": vec![json!({"AllocatedUsageQuantity": 0}); 2501]}),
            validation,
        ),
        (
            json!({"UsageAllocations": [{"AllocatedUsageQuantity": 16}]}),
            allocations,
        ),
        (
            json!({"UsageAllocations": [{"AllocatedUsageQuantityAsDecimal": "17"}]}),
            allocations,
        ),
        (
            json!({"UsageAllocations": [{"AllocatedUsageQuantity": 17}, {"AllocatedUsageQuantity": 0}]}),
            allocations,
        ),
        (part(json!([])), validation),
        (part(json!([{"Key": "k"}])), validation),
        (part(json!([{"Key": "", "Value": "v"}])), tags),
        (part(json!([{"Key": "ä", "Value": "v"}])), tags),
        (part(json!([{"Key": "k".repeat(101), "Value": "v"}])), tags),
        (part(json!([{"Key": "k", "Value": "v".repeat(257)}])), tags),
        (part(json!([tag, tag])), tags),
        (
            part(Value::Array(
                (0..6)
                    .map(|i| json!({"Key": format!("k{i}"), "Value": "v"}))
                    .collect(),
            )),
            tags,
        ),
    ] {
        refuses_legacy(&seller, changes.clone(), name).await;
        refuses_licensed(&seller, changes, name).await;
    }
}

#[tokio::test]
async fn members_have_the_types_and_limits_of_the_service_model() {
    let seller = Seller::start().await;
    let (validation, serialization) = ("ValidationException", "SerializationException");
    for (changes, name) in [
        (json!({"Timestamp": null}), validation),
        (json!({"Timestamp": "2026-11-24T10:30:00Z"}), serialization),
        (json!({"Dimension": null}), validation),
        (json!({"Dimension": ""}), validation),
        (json!({"Dimension": 1}), serialization),
        (json!({"CustomerIdentifier": "i".repeat(256)}), validation),
        (json!({"ClientToken": "t"}), validation),
        (json!({"UsageQuantity": 1}), validation),
        (
            json!({"UsageAllocations": [{"AllocatedUsageQuantity": 17, "Tag": []}]}),
            validation,
        ),
        (
            json!({"UsageAllocations": [{"AllocatedUsageQuantity": 17, "Tags": [{"Key": "k", "Value": "v", "x": 1}]}]}),
            validation,
        ),
    ] {
        refuses_legacy(&seller, changes, name).await;
    }
    for account in ["", "12345678901x", "222233334444 "] {
        refuses_licensed(
            &seller,
            json!({"CustomerAWSAccountId": account}),
            validation,
        )
        .await;
    }
    for (body, name) in [
        ("", serialization),
        ("[]", serialization),
        ("{}", validation),
        (r#"{"UsageRecords":null}"#, validation),
        (r#"{"UsageRecords":{}}"#, serialization),
        (r#"{"UsageRecords":[1]}"#, serialization),
        (r#"{"UsageRecords":[],"DryRun":true}"#, validation),
        (r#"{"UsageRecords":[],"ProductCode":"a b"}"#, validation),
        (r#"{"UsageRecords":[],"ProductCode":1}"#, serialization),
    ] {
        let answer = seller.call(REPLICA_1, "BatchMeterUsage", body).await;
        assert_eq!(answer, Err(exception(name)), "{body}");
    }
}

#[tokio::test]
async fn a_batch_has_up_to_25_records() {
    let seller = Seller::start().await;
    let batch = |records: i64| -> Vec<Value> {
        (0..records)
            .map(|i| legacy(&json!({"Timestamp": seconds("2026-11-24T10:30:00Z") - 1800 * i, "Quantity": i})))
            .collect()
    };
    let answer = seller.meter_legacy(&batch(26)).await;
    assert_eq!(answer, Err(exception("ValidationException")));
    assert!(seller.billed().is_empty());
    let answer = seller.meter_legacy(&batch(25)).await.unwrap();
    assert_eq!(answer["Results"].as_array().unwrap().len(), 25);
    let nothing = json!({"Results": [], "UnprocessedRecords": []});
    assert_eq!(seller.meter_legacy(&[]).await, Ok(nothing.clone()));
    assert_eq!(seller.meter_licensed(&[]).await, Ok(nothing));
    let request = json!({"ProductCode": "prod-nobody", "UsageRecords": []});
    let answer = seller.meter(request).await;
    assert_eq!(answer, Err(exception("InvalidProductCodeException")));
}

#[tokio::test]
async fn a_request_is_smaller_than_a_megabyte() {
    let seller = Seller::start().await;
    let body = |bytes: usize| {
        let body = json!({"UsageRecords": [licensed(&json!({}))]}).to_string();
        let padding = " ".repeat(bytes - body.len());
        body + &padding
    };
    let answer = seller
        .call(REPLICA_1, "BatchMeterUsage", &body(1_000_000))
        .await;
    assert_eq!(
        answer,
        Err(Failure::Exception(
            413,
            "RequestEntityTooLargeException".to_owned()
        ))
    );
    assert!(seller.billed().is_empty());
    seller
        .call(REPLICA_1, "BatchMeterUsage", &body(999_999))
        .await
        .unwrap();
    assert_eq!(seller.billed(), ["17"]);
}

#[tokio::test]
async fn a_role_without_the_action_is_denied() {
    let seller = Seller::start().await;
    let body = json!({"UsageRecords": [licensed(&json!({}))]}).to_string();
    let answer = seller.call(WEB_SITE, "BatchMeterUsage", &body).await;
    assert_eq!(answer, Err(exception("AccessDeniedException")));
    assert!(seller.billed().is_empty());
}

#[tokio::test]
async fn what_the_service_does_not_have_is_refused() {
    let seller = Seller::start().await;
    for operation in ["BatchMeterUsages", "batchMeterUsage", ""] {
        let answer = seller.call(REPLICA_1, operation, "{}").await;
        assert_eq!(
            answer,
            Err(exception("UnknownOperationException")),
            "{operation}"
        );
    }
}

#[tokio::test]
async fn another_products_customer_is_not_subscribed_to_this_one() {
    let seller = Seller::start().await;
    let stranger = legacy(&json!({"CustomerIdentifier": "identifier-of-stranger"}));
    let batch = [legacy(&json!({})), stranger.clone()];
    let answer = seller.meter_legacy(&batch).await.unwrap();
    assert_eq!(statuses(&answer), ["Success", "CustomerNotSubscribed"]);
    let request = json!({"ProductCode": OTHER_PRODUCT, "UsageRecords": [stranger]});
    let answer = seller.meter(request).await.unwrap();
    assert_eq!(statuses(&answer), ["Success"]);
}
