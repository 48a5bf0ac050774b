# Only for building against ROS 2 from PyPI wheels (tools/build_messages.sh passes it as
# CMAKE_PROJECT_INCLUDE). The wheels' exported targets carry include folders of the container they
# were built in (/opt/python/...), and CMake refuses targets whose folders do not exist: drop those.
# A ROS install never needs this file.
function(drop_missing_include_folders)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(folders)
      set(existing "")
      foreach(folder IN LISTS folders)
        if(folder MATCHES "^\\$<" OR EXISTS "${folder}")
          list(APPEND existing "${folder}")
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL drop_missing_include_folders)
