# What lies within records as JSON. What is promised stands in jsonparts.py.

from collector.exporters.fields.elements cimport Repeated
from collector.exporters.fields.points cimport Point
from collector.exporters.text cimport Text

cdef int put_events(Text* out, Repeated events) except? -1
cdef int put_links(Text* out, Repeated links) except? -1
cdef int put_exemplars(Text* out, Repeated exemplars) except? -1
cdef int put_distribution(Text* out, Point* point, int kind) except? -1
