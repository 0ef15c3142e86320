use tidegate_hub::schema::HubSchema;

#[derive(HubSchema)]
struct NoRepr {
    a: u32,
}

#[repr(Rust)]
#[derive(HubSchema)]
struct RustRepr {
    a: u32,
}

#[repr(C, packed)]
#[derive(HubSchema)]
struct Packed {
    a: u32,
}

#[repr(transparent)]
#[derive(HubSchema)]
struct Transparent {
    a: u32,
}

fn main() {}
