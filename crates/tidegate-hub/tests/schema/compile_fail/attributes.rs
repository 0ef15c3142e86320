use tidegate_hub::schema::HubSchema;

#[repr(C)]
#[derive(HubSchema)]
#[hub(version = "2")]
struct BadVersion {
    a: u32,
}

#[repr(C)]
#[derive(HubSchema)]
#[hub(name = "_Bad")]
struct BadName {
    a: u32,
}

#[repr(C)]
#[derive(HubSchema)]
#[hub(name = "f64")]
struct NameOfPrimitive {
    a: u32,
}

#[repr(C)]
#[derive(HubSchema)]
#[hub(verson = "2.0")]
struct Unknown {
    a: u32,
}

#[repr(C)]
#[derive(HubSchema)]
struct UnknownOfField {
    #[hub(default)]
    a: u32,
}

#[repr(C)]
#[derive(HubSchema)]
struct RequiredAfterOptional {
    #[hub(optional)]
    a: u32,
    b: u32,
}

fn main() {}
