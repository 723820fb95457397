"""The configuration model that every Heim program and tool agrees on."""
