"""The simulator's shapes against the service model that botocore ships."""

import botocore.session
import pytest

MODEL = botocore.session.get_session().get_service_model("meteringmarketplace")


@pytest.fixture
def shapes(simulator):
    return simulator.admin("GET", "model")


def test_operations_have_the_members_and_errors_of_the_service_model(shapes):
    assert sorted(operation["name"] for operation in shapes["operations"]) == sorted(MODEL.operation_names)
    for operation in shapes["operations"]:
        model = MODEL.operation_model(operation["name"])
        assert set(operation["input"]) == set(model.input_shape.members), operation["name"]
        assert set(operation["required"]) == set(model.input_shape.required_members)
        assert set(operation["output"]) == set(model.output_shape.members)
        assert set(operation["errors"]) == {shape.name for shape in model.error_shapes}


def test_structures_have_the_members_of_the_service_model(shapes):
    assert {"UsageRecord", "UsageRecordResult", "Metadata"} <= {structure["shape"] for structure in shapes["structures"]}
    for structure in shapes["structures"]:
        shape = MODEL.shape_for(structure["shape"])
        assert set(structure["members"]) == set(shape.members), structure
        assert set(structure["required"]) == set(shape.required_members), structure


def test_texts_have_the_limits_and_patterns_of_the_service_model(shapes):
    for limits in shapes["texts"]:
        shape = MODEL.shape_for(limits["shape"])
        assert limits["min"] == shape.metadata.get("min", 0), limits
        assert limits["max"] == shape.metadata.get("max"), limits
    patterns = {shape["shape"]: shape["pattern"] for shape in shapes["texts"]}
    document = botocore.session.get_session().get_component("data_loader").load_service_model(
        "meteringmarketplace", "service-2"
    )
    assert patterns == {name: document["shapes"][name].get("pattern") for name in patterns}


def test_lists_have_the_limits_of_the_service_model(shapes):
    assert shapes["allocations_max"] == MODEL.shape_for("UsageAllocations").metadata["max"]
    assert shapes["records_max"] == MODEL.shape_for("UsageRecordList").metadata["max"]
    assert shapes["tags_max"] == MODEL.shape_for("TagList").metadata["max"]


def test_the_statuses_of_records_are_those_of_the_service_model(shapes):
    assert shapes["statuses"] == MODEL.shape_for("UsageRecordResultStatus").enum
