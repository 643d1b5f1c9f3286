#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The PyKMIP 0.10 server with Add Attribute and custom x-* attributes, which the original refuses.

A wrapper of our own around the real server: it shows that our requests for custom attributes are well formed and what
they carry, and nothing about other makers' servers. Values are kept as application-specific-info rows.
"""
import warnings

warnings.simplefilter("ignore")
from kmip.core import attributes, enums, exceptions, objects, primitives, utils
from kmip.core.factories.payloads.request import RequestPayloadFactory
from kmip.core.factories.payloads.response import ResponsePayloadFactory
from kmip.core.messages.payloads import base
from kmip.pie import objects as pie
from kmip.services.server import engine, server

TAG = enums.Tags.UNIQUE_IDENTIFIER


class Payload:
    """Unique identifier and one attribute, in requests and answers."""

    def __init__(self, uid=None, attribute=None):
        super().__init__()
        self.uid, self.attribute = uid, attribute

    def read(self, stream, kmip_version=enums.KMIPVersion.KMIP_1_0):
        super().read(stream, kmip_version=kmip_version)
        body = utils.BytearrayStream(stream.read(self.length))
        if self.is_tag_next(TAG, body):
            self.uid = primitives.TextString(tag=TAG)
            self.uid.read(body, kmip_version=kmip_version)
        self.attribute = objects.Attribute()
        self.attribute.read(body, kmip_version=kmip_version)

    def write(self, stream, kmip_version=enums.KMIPVersion.KMIP_1_0):
        body = utils.BytearrayStream()
        self.uid.write(body, kmip_version=kmip_version)
        self.attribute.write(body, kmip_version=kmip_version)
        self.length = body.length()
        super().write(stream, kmip_version=kmip_version)
        stream.write(body.buffer)


class Request(Payload, base.RequestPayload):
    pass


class Response(Payload, base.ResponsePayload):
    pass


RequestPayloadFactory._create_add_attribute_payload = lambda self: Request()
ResponsePayloadFactory._create_add_attribute_payload = lambda self: Response()

Engine = engine.KmipEngine
operate, template = Engine._process_operation, Engine._process_template_attribute
set_all, get_all = Engine._set_attributes_on_managed_object, Engine._get_attributes_from_managed_object


def keep(item, name, value):
    row = pie.ApplicationSpecificInformation(application_namespace=name, application_data=value)
    item.app_specific_info.append(row)


def process_operation(self, operation, payload):
    if operation != enums.Operation.ADD_ATTRIBUTE:
        return operate(self, operation, payload)
    uid = payload.uid.value if payload.uid else self._id_placeholder
    item = self._get_object_with_access_controls(uid, enums.Operation.ADD_ATTRIBUTE)
    name = payload.attribute.attribute_name.value
    if not name.startswith("x-"):
        raise exceptions.InvalidField("Only custom attributes can be added.")
    if any(row.application_namespace == name for row in item.app_specific_info):
        raise exceptions.InvalidField("The attribute already exists.")
    keep(item, name, payload.attribute.attribute_value.value)
    self._data_session.commit()
    return Response(primitives.TextString(uid, tag=TAG), payload.attribute)


def process_template(self, given):
    custom = [a for a in given.attributes if a.attribute_name.value.startswith("x-")]
    given.attributes = [a for a in given.attributes if a not in custom]
    known = template(self, given)
    self._custom = custom
    return known


def set_attributes(self, item, known):
    set_all(self, item, known)
    for a in getattr(self, "_custom", None) or []:
        keep(item, a.attribute_name.value, a.attribute_value.value)
    self._custom = []


def get_attributes(self, item, names):
    others = [n for n in names if not n.startswith("x-")] if names else names
    found = get_all(self, item, others) if not names or others else []
    for row in item.app_specific_info:
        name = row.application_namespace
        if name.startswith("x-") and (not names or name in names):
            found.append(
                objects.Attribute(
                    attribute_name=objects.Attribute.AttributeName(name),
                    attribute_value=attributes.CustomAttribute(row.application_data),
                )
            )
    return found


Engine._process_operation = process_operation
Engine._process_template_attribute = process_template
Engine._set_attributes_on_managed_object = set_attributes
Engine._get_attributes_from_managed_object = get_attributes

if __name__ == "__main__":
    server.main()
