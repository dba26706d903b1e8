"""Programs that make the built-in face model from nothing but figures: no mesh, scan or basis from elsewhere.

`sculpture` is the average face as an implicit surface, `template` lays a mesh with landmarks over it.
"""
