//! ResolveCustomer: who a buyer with a registration token is.

use marketplace_simulator::config::{Customer, Token};
use marketplace_simulator::fault::{Fault, Kind};
use serde_json::{Map, Value, json};

use crate::seller::{
    ACCOUNT, Failure, LICENSE, NOW, PRODUCT, SECOND_LICENSE, Seller, WEB_SITE, customer, exception,
    license, token,
};

#[tokio::test]
async fn a_token_tells_who_the_buyer_is_again_and_again() {
    let seller = Seller::start().await;
    seller.change("buyer", |customer| {
        customer.licenses[0].agreement_id = Some("agmt-1".to_owned());
        customer.licenses[1].agreement_id = Some("agmt-2".to_owned());
    });
    seller.put_token(token("t-1", "buyer"));
    seller.put_token(Token {
        license_arn: Some(SECOND_LICENSE.to_owned()),
        ..token("t-2", "buyer")
    });
    for (token, arn, agreement) in [
        ("t-1", LICENSE, "agmt-1"),
        ("t-2", SECOND_LICENSE, "agmt-2"),
        ("t-1", LICENSE, "agmt-1"),
    ] {
        assert_eq!(
            seller.resolve(token).await.unwrap(),
            json!({
                "CustomerIdentifier": "identifier-of-buyer", "ProductCode": PRODUCT,
                "CustomerAWSAccountId": ACCOUNT, "LicenseArn": arn, "Metadata": {"AgreementId": agreement},
            })
        );
    }
}

#[tokio::test]
async fn what_a_customer_does_not_have_is_left_out() {
    let seller = Seller::start().await;
    let new = Customer {
        customer_identifier: None,
        customer_aws_account_id: Some("888899990000".to_owned()),
        licenses: vec![license("arn:aws:license-manager::888899990000:license:l-8")],
        ..customer("new")
    };
    seller.simulator.world().put_customer(new).unwrap();
    seller
        .simulator
        .world()
        .put_customer(customer("old"))
        .unwrap();
    seller.put_token(token("new", "new"));
    seller.put_token(token("old", "old"));
    assert_eq!(
        seller.resolve("new").await.unwrap(),
        json!({
            "ProductCode": PRODUCT, "CustomerAWSAccountId": "888899990000",
            "LicenseArn": "arn:aws:license-manager::888899990000:license:l-8",
        })
    );
    assert_eq!(
        seller.resolve("old").await.unwrap(),
        json!({"ProductCode": PRODUCT, "CustomerIdentifier": "identifier-of-old"})
    );
}

#[tokio::test]
async fn an_unknown_token_is_invalid_and_an_old_one_expired() {
    let seller = Seller::start().await;
    seller.put_token(token("t", "buyer"));
    seller.put_token(Token {
        expires_at: Some(NOW.parse().unwrap()),
        ..token("old", "buyer")
    });
    assert_eq!(
        seller.resolve("other").await,
        Err(exception("InvalidTokenException"))
    );
    let expired = Err(exception("ExpiredTokenException"));
    assert_eq!(seller.resolve("old").await, expired);
    // Four hours are what AWS gives a buyer.
    seller.set_clock("2026-11-24T14:29:00Z");
    seller.resolve("t").await.unwrap();
    seller.set_clock("2026-11-24T14:30:00Z");
    assert_eq!(seller.resolve("t").await, expired);
    // The buyer comes from AWS Marketplace again.
    seller.put_token(token("t", "buyer"));
    seller.resolve("t").await.unwrap();
}

#[tokio::test]
async fn members_that_no_sdk_knows_are_answered_beside_the_others() {
    let seller = Seller::start().await;
    seller.change("buyer", |customer| {
        customer.licenses[0].agreement_id = Some("agmt-1".to_owned());
    });
    let further: Map<String, Value> = serde_json::from_value(json!({
        "OfferId": "offer-1", "Nested": {"a": [1, null]}, "Metadata": {"OfferSetId": "set-1"},
    }))
    .unwrap();
    seller.put_token(Token {
        further_members: further,
        ..token("t", "buyer")
    });
    assert_eq!(
        seller.resolve("t").await.unwrap(),
        json!({
            "CustomerIdentifier": "identifier-of-buyer", "ProductCode": PRODUCT,
            "CustomerAWSAccountId": ACCOUNT, "LicenseArn": LICENSE,
            "Metadata": {"AgreementId": "agmt-1", "OfferSetId": "set-1"},
            "OfferId": "offer-1", "Nested": {"a": [1, null]},
        })
    );
}

#[tokio::test]
async fn requests_have_the_shape_of_the_service_model() {
    let seller = Seller::start().await;
    seller.put_token(token("t", "buyer"));
    for (body, name) in [
        ("{}", "ValidationException"),
        (r#"{"RegistrationToken":null}"#, "ValidationException"),
        (r#"{"RegistrationToken":""}"#, "ValidationException"),
        (
            r#"{"RegistrationToken":"t","ProductCode":"p"}"#,
            "ValidationException",
        ),
        (r#"{"RegistrationToken":1}"#, "SerializationException"),
        ("t", "SerializationException"),
    ] {
        let answer = seller.call(WEB_SITE, "ResolveCustomer", body).await;
        assert_eq!(answer, Err(exception(name)), "{body}");
    }
}

#[tokio::test]
async fn where_the_product_is_not_offered_the_api_is_disabled() {
    let seller = Seller::start().await;
    seller.put_token(token("t", "buyer"));
    seller
        .simulator
        .world()
        .product_mut(PRODUCT)
        .unwrap()
        .regions = vec!["eu-west-1".to_owned()];
    assert_eq!(
        seller.resolve("t").await,
        Err(exception("DisabledApiException"))
    );
}

#[tokio::test]
async fn faults_strike_it_too() {
    let seller = Seller::start().await;
    seller.put_token(token("t", "buyer"));
    for (kind, failure) in [
        (Kind::ReplyLost, Failure::NoAnswer),
        (Kind::Truncated, Failure::NoAnswer),
        (Kind::ConnectionReset, Failure::NoAnswer),
        (
            Kind::InternalError,
            Failure::Exception(500, "InternalServiceErrorException".to_owned()),
        ),
    ] {
        seller.fault(Fault {
            operation: Some("ResolveCustomer".to_owned()),
            count: Some(1),
            ..Fault::new(kind)
        });
        assert_eq!(seller.resolve("t").await, Err(failure), "{kind:?}");
        seller.resolve("t").await.unwrap();
    }
}
