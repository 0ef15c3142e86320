use tidegate_hub::schema::HubSchema;

#[repr(C)]
#[derive(HubSchema)]
struct Names {
    a: u8,
    _pad1: [u8; 1],
    b: u8,
    _pad0: u8,
    c: u8,
    #[hub(optional)]
    _pad2: [u8; 1],
}

#[repr(C)]
#[derive(HubSchema)]
struct Twice {
    a: u16,
    _pad0: [u8; 1],
    _pad1: [u8; 1],
}

#[repr(C)]
#[derive(HubSchema)]
struct Nothing {
    _pad0: [u8; 1],
}

fn main() {}
