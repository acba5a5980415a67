//! What differs between two versions of a contract, as far as it breaks clients.

use std::collections::BTreeMap;

use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Everything in a contract that a client may rest on: a path such as `message mayfly.v1.Lease field 3`, and what is
/// there. A change that breaks a client removes an entry or changes its text.
pub fn promises(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut promises = BTreeMap::new();
    for file in set.file.iter().filter(|file| file.package() == PACKAGE) {
        for message in &file.message_type {
            of_message(PACKAGE, message, &mut promises);
        }
        for listed in &file.enum_type {
            of_enum(PACKAGE, listed, &mut promises);
        }
        for service in &file.service {
            promises.insert(format!("service {}", service.name()), String::new());
            for method in &service.method {
                let stream = |streams| if streams { "stream " } else { "" };
                let promise = format!(
                    "({}{}) returns ({}{})",
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type()
                );
                promises.insert(format!("service {} rpc {}", service.name(), method.name()), promise);
            }
        }
    }
    promises
}

/// The promises of `old` that `new` breaks, one line each; empty when clients of `old` can talk to `new`.
pub fn breaks(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let kept = promises(new);
    let broken = promises(old).into_iter().filter_map(|(place, was)| match kept.get(&place) {
        None => Some(format!("{place}: removed (was `{was}`)")),
        Some(is) if *is != was => Some(format!("{place}: `{was}` became `{is}`")),
        Some(_) => None,
    });
    broken.collect()
}

fn of_message(outer: &str, message: &DescriptorProto, promises: &mut BTreeMap<String, String>) {
    let name = format!("{outer}.{}", message.name());
    promises.insert(format!("message {name}"), String::new());
    for field in &message.field {
        promises.insert(format!("message {name} field {}", field.number()), of_field(message, field));
    }
    for nested in &message.nested_type {
        of_message(&name, nested, promises);
    }
    for listed in &message.enum_type {
        of_enum(&name, listed, promises);
    }
}

fn of_field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
    let oneof = oneof.map_or_else(String::new, |oneof| format!(" in {}", oneof.name()));
    let (label, kind) = (field.label().as_str_name(), field.r#type().as_str_name());
    format!("{label} {kind} {} {}{oneof}", field.type_name(), field.name())
}

fn of_enum(outer: &str, listed: &EnumDescriptorProto, promises: &mut BTreeMap<String, String>) {
    let name = format!("{outer}.{}", listed.name());
    promises.insert(format!("enum {name}"), String::new());
    for value in &listed.value {
        promises.insert(format!("enum {name} value {}", value.number()), value.name().to_owned());
    }
}

const PACKAGE: &str = "mayfly.v1";
