# The OpenSSL configuration of the provider "reseal", from providers/ossl/reseal.cnf.in: as a file in the build tree, as a
# file of the installation (whose prefix is known only then), and as text in the command reseal.
set(fragment_source ${CMAKE_SOURCE_DIR}/providers/ossl/reseal.cnf.in)
set(fragment_modules ${CMAKE_INSTALL_LIBDIR}/ossl-modules)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${fragment_source})

# In a value of OpenSSL's configuration a backslash makes any character an ordinary one.
string(REGEX REPLACE "([^A-Za-z0-9/._+@,~:=-])" "\\\\\\1" RESEAL_MODULE "${CMAKE_BINARY_DIR}/lib/ossl-modules/reseal.so")
configure_file(${fragment_source} ${CMAKE_BINARY_DIR}/lib/ossl-modules/openssl-reseal.cnf @ONLY)

file(READ ${fragment_source} fragment)
string(REPLACE "\\" "\\\\" fragment "${fragment}")
string(REPLACE "\"" "\\\"" fragment "${fragment}")
string(REPLACE "\n" "\\n\"\n\"" fragment "${fragment}")
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/generated/openssl-fragment.inc CONTENT "\"${fragment}\"\n")

# From the folder of the command to that of the module.
file(RELATIVE_PATH to_modules /${CMAKE_INSTALL_BINDIR} /${fragment_modules})
target_compile_definitions(reseal PRIVATE RESEAL_TO_MODULES="${to_modules}")

install(CODE "
  set(place \"\${CMAKE_INSTALL_PREFIX}/${fragment_modules}/reseal.so\")
  string(REGEX REPLACE \"([^A-Za-z0-9/._+@,~:=-])\" \"\\\\\\\\\\\\1\" RESEAL_MODULE \"\${place}\")
  set(made \"${CMAKE_CURRENT_BINARY_DIR}/openssl-reseal.cnf\")
  configure_file(\"${fragment_source}\" \"\${made}\" @ONLY)
  file(INSTALL \"\${made}\" DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/reseal\")
")
