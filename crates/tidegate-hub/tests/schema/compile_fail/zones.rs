use tidegate_hub::schema::ZoneLayout;

#[repr(C)]
#[derive(ZoneLayout)]
struct Plain {
    a: u32,
}

#[repr(C)]
#[derive(ZoneLayout)]
struct Truth {
    a: bool,
}

fn main() {}
